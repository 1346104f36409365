//! Mails: encryption, logins, and servers that refuse.

use std::fs;

use super::super::harness::smtp::SmtpServer;
use super::super::harness::{tls, until};
use super::{Delivery, SECRET, check_failed, check_refused, names, notification, open, send};

fn mail_section(server: &SmtpServer) -> String {
    format!(
        "[notify.r]\nsmtp = \"{}\"\nfrom = \"Shop <silverd@shop.example>\"\n\
         to = [\"ann@shop.example\", \"Ben <ben@shop.example>\"]\n",
        server.address()
    )
}

#[test]
fn a_mail_is_sent_over_starttls_with_a_login() {
    let (folder, server) = (tempfile::tempdir().unwrap(), SmtpServer::with_starttls(SECRET));
    fs::copy(tls::authority(), folder.path().join("ca.pem")).unwrap();
    fs::write(folder.path().join("password"), format!("{SECRET}\n")).unwrap();
    let section = format!("{}user = \"shop\"\npassword_file = \"password\"\n", mail_section(&server));
    check_failed(send(&section, folder.path()), "certificate");
    let trusted = format!("{section}tls_ca = \"ca.pem\"\n");
    send(&trusted, folder.path()).unwrap();
    let mails = server.mails();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert!(mail.is_encrypted && mail.user.as_deref() == Some("shop"));
    assert_eq!(mail.from, "silverd@shop.example");
    assert_eq!(mail.to, ["ann@shop.example", "ben@shop.example"]);
    for line in
        ["Message-ID: <n-1@silverd>", "Subject: [silverd] Warning: no_orders: no orders for 15 minutes", "orders: 0"]
    {
        assert!(mail.text.lines().any(|found| found == line), "no {line} in:\n{}", mail.text);
    }
    // Nothing but the beginning of the session was sent without encryption.
    let commands = server.seen_unencrypted();
    assert!(
        commands.lines().all(|line| line.starts_with("EHLO") || line == "STARTTLS" || line == "QUIT"),
        "{commands}"
    );

    fs::write(folder.path().join("password"), "another").unwrap();
    check_refused(send(&trusted, folder.path()), "the password is not right");
    // A server that offers no STARTTLS gets nothing.
    let plain = SmtpServer::unencrypted();
    let section = mail_section(&plain);
    check_failed(send(&section, folder.path()), "STARTTLS");
    assert!(plain.mails().is_empty());
    send(&format!("{section}tls = \"none\""), folder.path()).unwrap();
    assert!(!plain.mails()[0].is_encrypted);
}

#[test]
fn a_mail_server_may_refuse_for_now_or_one_recipient() {
    let (folder, server) = (tempfile::tempdir().unwrap(), SmtpServer::unencrypted());
    let section = format!("{}tls = \"none\"", mail_section(&server));
    server.refuse_mail("451 4.3.0 come back later");
    check_failed(send(&section, folder.path()), "come back later");
    server.refuse_to("ann@shop.example", "550 5.1.1 no such user");
    send(&section, folder.path()).unwrap();
    assert_eq!(server.mails().iter().map(|mail| mail.to.join(" ")).collect::<Vec<_>>(), ["ben@shop.example"]);
    server.refuse_to("ben@shop.example", "550 5.1.1 no such user");
    check_refused(send(&section, folder.path()), "no such user");
    server.refuse_to("ben@shop.example", "452 4.2.2 mailbox full");
    check_failed(send(&section, folder.path()), "mailbox full");
}

#[test]
fn a_mail_that_fails_for_now_is_sent_again_with_the_same_id() {
    let (folder, server) = (tempfile::tempdir().unwrap(), SmtpServer::unencrypted());
    server.refuse_mail("421 4.3.2 too many connections");
    let delivery = Delivery::start(open(folder.path(), &format!("{}tls = \"none\"", mail_section(&server))));
    delivery.outbox.add(&notification("n-7", "no_orders"), &names(&["r"])).unwrap();
    until("it is delivered", || delivery.status("r").delivered == 1);
    assert_eq!(delivery.status("r").failed_tries, 1);
    let mails = server.mails();
    assert!(mails.len() == 1 && mails[0].text.contains("Message-ID: <n-7@silverd>"), "{mails:?}");
    delivery.end();
}
