use super::*;

#[test]
fn a_guests_text_is_one_bounded_line() {
    let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
    check("no product SKU-1, café 日本 😀", "no product SKU-1, café 日本 😀");
    check("two\r\nlines\tand \0", "two\\r\\nlines\\tand \\u{0}");
    check("\x1b[31mred\x1b[0m \u{9b}2J \x7f", "\\u{1b}[31mred\\u{1b}[0m \\u{9b}2J \\u{7f}");
    check("abc\u{202e}fed\u{2028}\u{200b}\u{feff}", "abc\\u{202e}fed\\u{2028}\\u{200b}\\u{feff}");
    check("C:\\new", "C:\\new");
    check(&"é".repeat(LINE_BYTES_MAX), &format!("{}…", "é".repeat(LINE_BYTES_MAX / 2)));
    check(&"\n".repeat(1 << 20), &format!("{}…", "\\n".repeat(LINE_BYTES_MAX / 2)));
}

#[test]
fn a_second_has_so_many_lines_and_the_others_are_counted() {
    let (mut window, start) = (Window::default(), Instant::now());
    let admitted: Vec<_> = (0..5).map(|line| window.admit(2, start + Duration::from_millis(line * 100)).0).collect();
    assert_eq!(admitted, [true, true, false, false, false]);
    assert_eq!(window.settle(start + Duration::from_millis(999)), 0, "the second is not over");
    assert_eq!(window.admit(2, start + Duration::from_millis(1_500)), (true, 3));
    assert_eq!(window.admit(2, start + Duration::from_millis(2_499)), (true, 0));
    assert_eq!(window.admit(2, start + Duration::from_millis(2_499)), (false, 0));
    assert_eq!(window.settle(start + Duration::from_millis(2_500)), 1);
    assert_eq!(window.settle(start + Duration::from_secs(60)), 0, "they are told once");
}

#[test]
fn a_stream_is_read_line_by_line_and_keeps_the_last() {
    let words = |pieces: &[&[u8]]| {
        let mut words = Words::new(Logs::new("t", "p", &Digest::of(b""), 1));
        pieces.iter().for_each(|piece| words.stderr.take(piece));
        words.last()
    };
    let check = |pieces: &[&[u8]], expected: Option<&str>| assert_eq!(words(pieces).as_deref(), expected);
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
    assert_eq!(words(&[&endless, &endless]), Some(format!("{}…", "x".repeat(LINE_BYTES_MAX))));
}

#[test]
fn what_is_critical_is_told_when_it_was_survived_and_else_is_the_reason() {
    let mut words = Words::new(Logs::new("t", "p", &Digest::of(b""), 1));
    words.stderr.take(b"a line\n");
    words.say(Level::Critical, "panicked at src/lib.rs:1:2: oh".to_owned());
    assert_eq!(words.last().as_deref(), Some("panicked at src/lib.rs:1:2: oh"));
    words.say(Level::Critical, "nearly".to_owned());
    words.survived();
    words.begin();
    assert_eq!(words.last(), None);
}
