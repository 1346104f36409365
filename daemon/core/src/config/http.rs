//! `[http]`: the address, the tokens and the proxies of the dashboard and the API.

use super::error::ConfigError;
use super::literal;
use super::pipeline::{Http, Located, Network, Role, Secret, Tls, Token};
use super::read;
use super::secret::{SecretText, secret_text};
use super::section::{self, Root, Section};
use super::value::{Value, in_file_order, kind, wrong_type};
use super::walk::Walk;

const TOKEN_EXAMPLE: &str = "token = \"${SILVERD_TOKEN}\"";

pub(super) fn http(walk: &mut Walk, root: &Root) -> Http {
    let section = root.section(walk, "http");
    let listen = section.optional(walk, "listen", |walk, value| {
        let listen = read::parsed(literal::listen)(walk, value)?;
        Some(Located::new(listen, value.span()))
    });
    let is_guarded = section.has("token") || section.has("token_file") || section.has("tokens");
    if let Some(listen) = &listen
        && listen.value.is_some_and(|address| !address.ip().is_loopback())
        && !is_guarded
    {
        let what = "other machines can reach this address, but [http] has no token";
        let label = "not a loopback address";
        let help = format!("add `{TOKEN_EXAMPLE}` to [http], or listen on \"127.0.0.1:8080\"");
        walk.report(ConfigError::new(listen.span.clone(), what, label, Some(help)));
    }
    let mut tokens: Vec<_> = secret_text(walk, &section, "token", token).map(Token::main).into_iter().collect();
    tokens.extend(section.optional(walk, "tokens", named_tokens).unwrap_or_default());
    let trusted_proxies = section.optional(walk, "trusted_proxies", trusted_proxies);
    if let Some((_, proxies)) = section.key("trusted_proxies")
        && !is_guarded
    {
        let what = "a proxy lets other machines reach silverd, but [http] has no token";
        let help = format!(
            "add `{TOKEN_EXAMPLE}` to [http]; a proxy that asks for a password itself can add \
             `Authorization: Bearer …` to the requests"
        );
        walk.report(ConfigError::new(proxies.span(), what, "without a token", Some(help)));
    }
    Http {
        listen: listen.map_or(Some(Http::LISTEN), |listen| listen.value),
        tokens,
        base_path: section.optional(walk, "base_path", read::parsed(literal::base_path)).unwrap_or_default(),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        tls: section.optional(walk, "tls", tls),
    }
}

impl Token {
    fn main(text: SecretText) -> Self {
        Token { name: Token::MAIN.to_owned(), role: Role::Operate, text }
    }
}

fn token(walk: &mut Walk, value: Value) -> Option<SecretText> {
    let token = read::expanded(walk, value)?;
    let Some(label) = Token::fault(&token) else { return Some(SecretText::Here(Secret::new(token))) };
    let help = "generate one with `openssl rand -hex 16`, and pass it in an environment variable";
    walk.report(ConfigError::new(value.span(), "this token cannot be used", label, Some(help.to_owned())));
    None
}

/// `[http.tokens.<name>]`, in the order of the file.
fn named_tokens(walk: &mut Walk, value: Value) -> Option<Vec<Token>> {
    let help = "write one section for every token, such as [http.tokens.grafana]";
    let Some(table) = value.get_ref().as_table() else {
        walk.report(wrong_type("http.tokens", "a table of tables", value).with_help(help));
        return None;
    };
    let mut tokens = Vec::new();
    for (key, value) in in_file_order(table) {
        let Some(name) = read::token_name(walk, key) else { continue };
        let title = format!("http.tokens.{name}");
        if !value.get_ref().is_table() {
            let what = format!("[http.tokens] contains only tables, but `{name}` is {}", kind(value));
            walk.report(ConfigError::new(key.span(), what, format!("expected [{title}]"), Some(help.to_owned())));
            continue;
        }
        let Some(section) = Section::open(walk, &title, section::HTTP_TOKEN, value) else { continue };
        let roles = [("view", Role::View), ("operate", Role::Operate)];
        let role = section.required(walk, "role", "role = \"view\"", read::choice("role", roles));
        let text = match secret_text(walk, &section, "token", token) {
            None if !section.has("token") && !section.has("token_file") => {
                section.required(walk, "token", TOKEN_EXAMPLE, token)
            }
            text => text,
        };
        if let (Some(role), Some(text)) = (role, text) {
            tokens.push(Token { name, role, text });
        }
    }
    Some(tokens)
}

fn trusted_proxies(walk: &mut Walk, value: Value) -> Option<Vec<Network>> {
    let help = "write the addresses that the proxies connect from, such as [\"127.0.0.1\", \"10.0.0.0/8\"]";
    let mut networks = Vec::new();
    read::list(walk, value, "a list of addresses", help, |walk, value| {
        let network = read::parsed(literal::network)(walk, value)?;
        networks.push(network);
        value.get_ref().as_str().map(str::to_owned)
    })?;
    Some(networks)
}

fn tls(walk: &mut Walk, value: Value) -> Option<Tls> {
    let section = Section::open(walk, "http.tls", section::HTTP_TLS, value)?;
    let certificate = section.required(walk, "certificate", "certificate = \"tls/cert.pem\"", read::expanded);
    let key = section.required(walk, "key", "key = \"tls/key.pem\"", read::expanded);
    Some(Tls { certificate: certificate?, key: key? })
}
