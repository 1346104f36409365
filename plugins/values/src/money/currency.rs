//! The currency before or after an amount.

/// The codes of ISO 4217 that amounts are written in, and those that were replaced after 2020, in alphabetical order. Not
/// every word of three letters is a currency: five `mln` are five million.
const CODES: &[[u8; 3]] = &codes::<161>(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP \
     CNY COP CRC CUC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK \
     HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA \
     MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB \
     RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD \
     UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ZWL",
);

const SYMBOLS: [char; 14] = ['€', '$', '£', '¥', '₹', '₽', '₩', '₺', '₴', '₫', '₪', '₱', '฿', '₦'];

/// The text behind a currency and the white space after it; `None` if the text does not begin with one.
pub(super) fn strip_before(text: &str) -> Option<&str> {
    let rest = match text.split_at_checked(3) {
        Some((code, rest)) if is_code(code) => rest,
        _ => text.strip_prefix(SYMBOLS)?,
    };
    Some(rest.trim_start())
}

/// The text before a currency and the white space before it; `None` if the text does not end with one.
pub(super) fn strip_after(text: &str) -> Option<&str> {
    let rest = match text.len().checked_sub(3).and_then(|at| text.split_at_checked(at)) {
        Some((rest, code)) if is_code(code) => rest,
        _ => text.strip_suffix(SYMBOLS)?,
    };
    Some(rest.trim_end())
}

/// All letters are capital, or all are small.
fn is_code(text: &str) -> bool {
    let Ok(code) = <[u8; 3]>::try_from(text.as_bytes()) else { return false };
    let capital = code.map(|byte| byte.to_ascii_uppercase());
    (code == capital || code == code.map(|byte| byte.to_ascii_lowercase())) && CODES.binary_search(&capital).is_ok()
}

const fn codes<const COUNT: usize>(text: &str) -> [[u8; 3]; COUNT] {
    let text = text.as_bytes();
    assert!(text.len() == COUNT * 4 - 1, "codes of three letters with a space between");
    let mut codes = [[0; 3]; COUNT];
    let mut index = 0;
    while index < COUNT {
        codes[index] = [text[index * 4], text[index * 4 + 1], text[index * 4 + 2]];
        index += 1;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_symbols_are_stripped() {
        let check = |text: &str, before: Option<&str>, after: Option<&str>| {
            assert_eq!((strip_before(text), strip_after(text)), (before, after), "{text}");
        };
        check("EUR 5", Some("5"), None);
        check("5EUR", None, Some("5"));
        check("5 eur", None, Some("5"));
        check("€\u{a0}5", Some("5"), None);
        check("5\u{202f}€", None, Some("5"));
        check("$5$", Some("5$"), Some("$5"));
        check("ZWL", Some(""), Some(""));
        check("AED5", Some("5"), None);
        check("Eur 5", None, None);
        check("5 mln", None, None);
        check("5 XXX", None, None);
        check("5¢", None, None);
        check("é5é", None, None);
        check("", None, None);
    }

    #[test]
    fn codes_are_in_order() {
        assert!(CODES.is_sorted());
        assert!(CODES.iter().flatten().all(u8::is_ascii_uppercase));
    }
}
