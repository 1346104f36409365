use super::*;

#[test]
fn text_of_a_guest_becomes_one_bounded_line() {
    let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
    check("no product SKU-1, café 日本 😀", "no product SKU-1, café 日本 😀");
    check("two\r\nlines\tand \0", "two\\r\\nlines\\tand \\u{0}");
    check("\x1b[31mred\x1b[0m \u{9b}2J \x7f", "\\u{1b}[31mred\\u{1b}[0m \\u{9b}2J \\u{7f}");
    check("abc\u{202e}fed\u{2028}\u{200b}\u{feff}", "abc\\u{202e}fed\\u{2028}\\u{200b}\\u{feff}");
    check("C:\\new", "C:\\new");
    check(&"é".repeat(LINE_BYTES_MAX), &format!("{}…", "é".repeat(LINE_BYTES_MAX / 2)));
    check(&"\n".repeat(1 << 20), &format!("{}…", "\\n".repeat(LINE_BYTES_MAX / 2)));
}

#[test]
fn lines_above_the_rate_limit_are_counted() {
    let (mut rate, start) = (RateLimit::default(), Instant::now());
    let admitted: Vec<_> = (0..5).map(|line| rate.admit(2, start + Duration::from_millis(line * 100)).0).collect();
    assert_eq!(admitted, [true, true, false, false, false]);
    assert_eq!(rate.end_second(start + Duration::from_millis(999)), 0, "the second is not over");
    assert_eq!(rate.admit(2, start + Duration::from_millis(1_500)), (true, 3));
    assert_eq!(rate.admit(2, start + Duration::from_millis(2_499)), (true, 0));
    assert_eq!(rate.admit(2, start + Duration::from_millis(2_499)), (false, 0));
    assert_eq!(rate.end_second(start + Duration::from_millis(2_500)), 1);
    assert_eq!(rate.end_second(start + Duration::from_secs(60)), 0, "they are reported once");
}

#[test]
fn last_lines_of_standard_error_are_the_reason_of_a_trap() {
    let reason = |pieces: &[&[u8]]| {
        let mut output = GuestOutput::new(Logs::new("t", "p", &Digest::of(b""), 1));
        pieces.iter().for_each(|piece| output.stderr.push(piece));
        output.take_trap_reason()
    };
    let check = |pieces: &[&[u8]], expected: Option<&str>| assert_eq!(reason(pieces).as_deref(), expected);
    check(&[], None);
    check(&[b"\n\n", b"  \n"], None);
    check(
        &[b"thread 'main' pan", b"icked at src/lib.rs:4:1:\nout of bou", b"nds"],
        Some("thread 'main' panicked at src/lib.rs:4:1: out of bounds"),
    );
    check(&[b"gone\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"], Some("gone"));
    check(&[b"\xff\x1b[2J\n"], Some("\u{fffd}\\u{1b}[2J"));
    let many = (0..20).map(|line| format!("{line}\n")).collect::<String>();
    check(&[many.as_bytes()], Some("12 13 14 15 16 17 18 19"));
    let endless = vec![b'x'; 1 << 20];
    assert_eq!(reason(&[&endless, &endless]), Some(format!("{}…", "x".repeat(LINE_BYTES_MAX))));
}

#[test]
fn critical_line_is_the_reason_of_a_trap_in_the_same_call() {
    let mut output = GuestOutput::new(Logs::new("t", "p", &Digest::of(b""), 1));
    output.stderr.push(b"a line\n");
    output.log(Level::Critical, "panicked at src/lib.rs:1:2: oh".to_owned());
    assert_eq!(output.take_trap_reason().as_deref(), Some("panicked at src/lib.rs:1:2: oh"));
    output.log(Level::Critical, "nearly".to_owned());
    output.call_succeeded();
    output.call_started();
    assert_eq!(output.take_trap_reason(), None);
}
