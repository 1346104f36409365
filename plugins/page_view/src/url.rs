//! Paths of pages, brought into one form, so that one page has one name.

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

/// What follows `https://shop.example`, if it begins like that. `//` alone does not make a host of what follows it: the
/// tracker writes paths, and such a one is a path with a slash too many.
fn without_host(url: &str) -> &str {
    // Most paths have no colon, and are too short for a search that makes itself ready.
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
    fn one_page_has_one_path() {
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
