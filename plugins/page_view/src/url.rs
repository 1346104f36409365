//! Normalization of page paths: one page has one path.

/// The path of a page: lower case, with one leading slash, without scheme and host, query and fragment, doubled
/// slashes and a slash at the end.
pub(crate) fn normalize(url: &str) -> String {
    let path = &url[..url.bytes().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(url.len())];
    let path = without_host(path);
    let mut normal = String::with_capacity(path.len() + 1);
    let mut after_slash = true;
    for letter in path.chars() {
        if letter != '/' {
            if after_slash {
                normal.push('/');
            }
            normal.push(letter.to_ascii_lowercase());
        }
        after_slash = letter == '/';
    }
    if normal.is_empty() {
        normal.push('/');
    }
    if normal.is_ascii() { normal } else { normal.to_lowercase() }
}

/// The part after `https://shop.example`, if the URL has a scheme. A leading `//` alone does not start a host: the tracker
/// writes paths, and such a path has a doubled slash.
fn without_host(url: &str) -> &str {
    // Fast path: most paths have no colon, and `split_once` is slow on short texts.
    if !url.bytes().any(|byte| byte == b':') {
        return url;
    }
    let Some((scheme, rest)) = url.split_once("://") else { return url };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme {
        return url;
    }
    rest.find('/').map_or("", |host_end| &rest[host_end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_one_page_have_one_path() {
        let check = |url: &str, expected: &str| assert_eq!(normalize(url), expected, "{url:?}");
        check("posts/category", "/posts/category");
        check("/posts/category/", "/posts/category");
        check("//Posts///Category//", "/posts/category");
        check("", "/");
        check("/", "/");
        check("///", "/");
        check("/search?q=https://example.com/x#top", "/search");
        check("#top", "/");
        check("?page=2", "/");
        check("https://Shop.Example:8443/Sale/?utm=1", "/sale");
        check("HTTP://shop.example", "/");
        check("https://shop.example?x=/y", "/");
        check("android-app://com.example/cart", "/cart");
        check("go/https://example.com", "/go/https:/example.com");
        check("1x://a/b", "/1x:/a/b");
        check("Ärger/ÜBER", "/ärger/über");
        check("/a%2Fb/../c", "/a%2fb/../c");
    }
}
