//! What a request says of its sender, directly or through a proxy.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use silverd_core::config::Network;

use crate::http::server::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Client {
    /// The browser's or program's address, or that of the first proxy that is not trusted.
    pub address: IpAddr,
    /// Whether it speaks TLS, with silverd or with a trusted proxy.
    pub is_tls: bool,
    /// The host that it asks for, with the port if it named one.
    host: String,
}

impl Client {
    pub(super) fn of(request: &Request<Body>, trusted_proxies: &[Network]) -> Self {
        let peer = request.extensions().get::<Peer>();
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip().to_canonical());
        Self::new(address, peer.is_some_and(|peer| peer.is_tls), request.headers(), trusted_proxies)
    }

    fn new(peer: IpAddr, is_tls: bool, headers: &HeaderMap, trusted_proxies: &[Network]) -> Self {
        let is_trusted = |address: IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
        let host = text(headers, &header::HOST).unwrap_or_default();
        if !is_trusted(peer) {
            return Self { address: peer, is_tls, host };
        }
        // Each proxy appends the address that it was connected from: those behind the trusted ones may be invented.
        let forwarded = text(headers, &FORWARDED_FOR).unwrap_or_default();
        let mut address = peer;
        for hop in forwarded.rsplit(',').map_while(|hop| hop.trim().parse::<IpAddr>().ok()) {
            address = hop.to_canonical();
            if !is_trusted(address) {
                break;
            }
        }
        let proto = first(headers, &FORWARDED_PROTO);
        Self {
            address,
            is_tls: proto.map_or(is_tls, |proto| proto.eq_ignore_ascii_case("https")),
            host: first(headers, &FORWARDED_HOST).unwrap_or(host),
        }
    }

    /// Whether the `Host` header names this machine. Another site can let its name resolve to this machine's address, but
    /// it cannot use this machine's names.
    pub(super) fn asks_loopback(&self, headers: &HeaderMap) -> bool {
        is_loopback_host(&text(headers, &header::HOST).unwrap_or_default())
    }

    /// Whether a browser sends the request for a page of another site.
    pub(super) fn is_cross_site(&self, headers: &HeaderMap) -> bool {
        // Browsers send it over TLS and to localhost, and no script can set it. A proxy does not change what it says.
        if let Some(site) = text(headers, &SEC_FETCH_SITE) {
            return !matches!(site.as_str(), "same-origin" | "none");
        }
        let Some(origin) = text(headers, &header::ORIGIN) else { return false };
        let Some((scheme, origin)) = origin.split_once("://") else { return true };
        let port = match scheme {
            "https" => ":443",
            _ => ":80",
        };
        without(origin, port) != without(&self.host, port)
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let first = values.next()?;
    Some(values.fold(first.to_owned(), |all, value| format!("{all}, {value}")))
}

/// The first of a list: what the client said to the first proxy.
fn first(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(text(headers, name)?.split(',').next()?.trim().to_owned())
}

fn without<'a>(host: &'a str, port: &str) -> &'a str {
    host.strip_suffix(port).unwrap_or(host)
}

fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::config;

    use super::*;

    #[test]
    fn loopback_hosts_are_recognized() {
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "silverd.localhost"]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["", "example.org", "localhost.example.org:8080", "192.168.1.2", "127.0.0.1.example.org", "[::2]:80"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn proxies(list: &str) -> Vec<Network> {
        let text = format!(
            "source = {{ brokers = 'b:1', topic = 't' }}\nhttp = {{ token = '0123456789abcdef', trusted_proxies = {list} }}"
        );
        config::check(&text, &|_| None).unwrap_or_else(|_| panic!("{list}")).http.trusted_proxies
    }

    fn client(peer: &str, pairs: &[(&'static str, &str)], proxies: &[Network]) -> Client {
        Client::new(peer.parse().unwrap(), false, &headers(pairs), proxies)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let forwarded = [
            ("host", "127.0.0.1:8080"),
            ("x-forwarded-for", "1.1.1.1, 9.9.9.9, 10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "silverd.example.org"),
        ];
        let trusted = proxies("['127.0.0.1', '10.0.0.0/8']");
        let through = client("127.0.0.1", &forwarded, &trusted);
        assert_eq!((through.address, through.is_tls), ("9.9.9.9".parse().unwrap(), true), "10.1.1.1 is a proxy");
        assert_eq!(through.host, "silverd.example.org");
        let other = client("192.168.0.1", &forwarded, &trusted);
        assert_eq!((other.address, other.is_tls), ("192.168.0.1".parse().unwrap(), false));
        assert_eq!(other.host, "127.0.0.1:8080");
        let bare = client("127.0.0.1", &[("host", "a")], &trusted);
        assert_eq!((bare.address, bare.is_tls, bare.host.as_str()), ("127.0.0.1".parse().unwrap(), false, "a"));
        let odd = client("127.0.0.1", &[("x-forwarded-for", "unknown, 9.9.9.9:80")], &trusted);
        assert_eq!(odd.address, "127.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn cross_site_requests_are_recognized() {
        let check = |pairs: &[(&'static str, &str)], is_cross_site: bool| {
            let mut pairs = pairs.to_vec();
            pairs.push(("host", "localhost:8080"));
            let client = client("127.0.0.1", &pairs, &[]);
            assert_eq!(client.is_cross_site(&headers(&pairs)), is_cross_site, "{pairs:?}");
        };
        check(&[], false); // as curl
        check(&[("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")], false);
        check(&[("origin", "http://localhost:8080")], false);
        check(&[("origin", "http://example.org")], true);
        check(&[("origin", "null")], true);
        check(&[("origin", "http://localhost:9999")], true);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("sec-fetch-site", "same-site")], true);
        // Behind a proxy that rewrites `Host`.
        check(&[("origin", "https://example.org"), ("sec-fetch-site", "same-origin")], false);
    }

    #[test]
    fn the_port_of_the_scheme_is_no_difference() {
        let check = |host: &str, origin: &str, is_cross_site: bool| {
            let pairs = [("host", "10.0.0.1:8080"), ("x-forwarded-host", host), ("origin", origin)];
            let client = client("127.0.0.1", &pairs, &proxies("['127.0.0.1']"));
            assert_eq!(client.is_cross_site(&headers(&pairs)), is_cross_site, "{host} {origin}");
        };
        check("example.org", "https://example.org", false);
        check("example.org:443", "https://example.org", false);
        check("example.org:80", "http://example.org", false);
        check("example.org:80", "https://example.org", true);
        check("example.org", "http://example.org:8443", true);
        check("example.org", "http://10.0.0.1:8080", true);
    }
}
