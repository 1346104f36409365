//! User agents of browsers and bots, with random version numbers.

use std::ops::RangeInclusive;

use super::Random;

/// The weight of a client, its major versions, and its template. In the template, `{v}` is the major version, `{m}` a
/// minor version, `{b}` a build and `{p}` a patch number; `{webkit}` and `{safari}` are the names of the engines.
type Client = (u64, RangeInclusive<u64>, &'static str);

#[rustfmt::skip]
static CLIENTS: [Client; 29] = [
    // Desktop
    (22, 118..=142, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/{v}.0.0.0 Safari/537.36"),
    (8, 118..=142, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {webkit} Chrome/{v}.0.0.0 Safari/537.36"),
    (3, 110..=142, "Mozilla/5.0 (X11; Linux x86_64) {webkit} Chrome/{v}.0.{b}.{p} Safari/537.36"),
    (2, 118..=140, "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {webkit} Chrome/{v}.0.0.0 Safari/537.36"),
    (7, 118..=142, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/{v}.0.0.0 Safari/537.36 Edg/{v}.0.{b}.{p}"),
    (2, 95..=122, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} Chrome/128.0.0.0 Safari/537.36 OPR/{v}.0.0.0"),
    (5, 115..=144, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0"),
    (2, 115..=144, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:{v}.0) Gecko/20100101 Firefox/{v}.0"),
    (2, 102..=144, "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0"),
    (7, 15..=18, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {safari} Version/{v}.{m} Safari/605.1.15"),
    (1, 8..=9, "Opera/{v}.{b}.(X11; Linux x86_64; en-US) Presto/2.9.{p} Version/12.00"),
    (1, 7..=10, "Mozilla/5.0 (compatible; MSIE {v}.0; Windows NT 6.2; Trident/6.0)"),
    (1, 6..=10, "Mozilla/5.0 (Windows NT {v}.{m}; WOW64; Trident/7.0; rv:11.0) like Gecko"),
    // Mobile
    (20, 15..=18, "Mozilla/5.0 (iPhone; CPU iPhone OS {v}_{m} like Mac OS X) {safari} Version/{v}.{m} Mobile/15E148 Safari/604.1"),
    (3, 118..=142, "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) {safari} CriOS/{v}.0.{b}.{p} Mobile/15E148 Safari/604.1"),
    (1, 118..=144, "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {safari} FxiOS/{v}.0 Mobile/15E148 Safari/605.1.15"),
    (14, 118..=142, "Mozilla/5.0 (Linux; Android 10; K) {webkit} Chrome/{v}.0.0.0 Mobile Safari/537.36"),
    (4, 118..=142, "Mozilla/5.0 (Linux; Android 14; Pixel 8) {webkit} Chrome/{v}.0.{b}.{p} Mobile Safari/537.36"),
    (4, 20..=28, "Mozilla/5.0 (Linux; Android 13; SM-S911B) {webkit} SamsungBrowser/{v}.0 Chrome/115.0.0.0 Mobile Safari/537.36"),
    (2, 115..=144, "Mozilla/5.0 (Android 14; Mobile; rv:{v}.0) Gecko/{v}.0 Firefox/{v}.0"),
    // Tablet
    (4, 14..=18, "Mozilla/5.0 (iPad; CPU OS {v}_{m} like Mac OS X) {safari} Version/{v}.{m} Mobile/15E148 Safari/604.1"),
    (2, 110..=142, "Mozilla/5.0 (Linux; Android 13; SM-X700) {webkit} Chrome/{v}.0.0.0 Safari/537.36"),
    (1, 90..=120, "Mozilla/5.0 (Linux; Android 9; KFMAWI) {webkit} Silk/{v}.{m}.1 like Chrome/{v}.0.{b}.{p} Safari/537.36"),
    // Bots
    (2, 2..=2, "Mozilla/5.0 (compatible; Googlebot/{v}.1; +http://www.google.com/bot.html)"),
    (1, 118..=142, "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {webkit} Chrome/{v}.0.{b}.{p} Mobile Safari/537.36 \
                    (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (1, 2..=2, "Mozilla/5.0 (compatible; bingbot/{v}.0; +http://www.bing.com/bingbot.htm)"),
    (1, 6..=7, "Mozilla/5.0 (compatible; AhrefsBot/{v}.0; +http://ahrefs.com/robot/)"),
    (1, 1..=1, "facebookexternalhit/{v}.1 (+http://www.facebook.com/externalhit_uatext.php)"),
    (1, 7..=8, "curl/{v}.{m}.1"),
];

const WEBKIT: &str = "AppleWebKit/537.36 (KHTML, like Gecko)";
const SAFARI: &str = "AppleWebKit/605.1.15 (KHTML, like Gecko)";

/// Which user agents the visitors have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserAgents {
    /// Those of a few hundred browsers.
    #[default]
    Browsers,
    /// So many, of which the one of rank n is seen 1/n as often as the first (Zipf's law): apps add their builds.
    Zipf(u32),
    /// Each page view has one of its own.
    Distinct,
}

/// Draws ranks by Zipf's law.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    /// The sums of 1/n up to each rank.
    sums: Vec<f64>,
}

impl Ranks {
    pub(super) fn new(count: u32) -> Self {
        let mut sum = 0.0;
        let next = |rank| {
            sum += 1.0 / f64::from(rank);
            sum
        };
        Self { sums: (1..=count.max(1)).map(next).collect() }
    }

    pub(super) fn draw(&self, random: &mut Random) -> u64 {
        let at = random.fraction() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum <= at) as u64
    }
}

/// The user agent of this rank: that of a browser, and the build of an app.
pub(super) fn of_rank(rank: u64) -> String {
    format!("{} ShopApp/{}.{}.{}", draw(&mut Random::new(rank)), rank / 10_000, rank / 100 % 100, rank % 100)
}

/// A random user agent. None has a character that JSON must escape.
pub(super) fn draw(random: &mut Random) -> String {
    let (_, versions, template) = client(random);
    let version = versions.start() + random.below(versions.end() - versions.start() + 1);
    // A client that names its version twice names the same one.
    let numbers =
        [("{v}", version), ("{m}", random.below(7)), ("{b}", 1_000 + random.below(6_000)), ("{p}", random.below(200))];
    let text = template.replace("{webkit}", WEBKIT).replace("{safari}", SAFARI);
    numbers.iter().fold(text, |text, (placeholder, number)| text.replace(placeholder, &number.to_string()))
}

fn client(random: &mut Random) -> &'static Client {
    let mut left = random.below(CLIENTS.iter().map(|(share, ..)| share).sum());
    let found = CLIENTS.iter().find(|(share, ..)| {
        let here = left < *share;
        left = left.saturating_sub(*share);
        here
    });
    // The draw is below the sum of the weights, so there is always one.
    found.unwrap_or(&CLIENTS[0])
}
