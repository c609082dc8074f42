//! Strings and passwords from a seed.

/// `SplitMix64`. Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators".
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// What a part may be, good or bad.
const PARTS: &[&str] = &[
    "",
    "a",
    "b1",
    "db",
    "al ice",
    "10.0.0.1",
    "10.1",
    "::1",
    "fe80::1%eth0",
    "/run",
    "%2Frun",
    "%2frun%2Fpg",
    "%40x",
    "@x",
    "é",
    "%C3%A9",
    "%ff",
    "%4",
    "%zz",
    "%00",
    "a%20b",
    " a ",
    "a b",
    "it's",
    "x\\y",
    "\\",
    "'",
    "a=b",
    "x&y",
    "x?y",
    "x/y",
    "a:b",
    "a,b",
    "a%2Cb",
    "%25",
    "0",
    "1",
    "日本",
];
const HOSTS: &[&str] =
    &["", "a", "b", "db1", "%2Frun", "10.0.0.1", "[::1]", "[fe80::1]", "[]", "[::1", "[a/b]", "a%62"];
const PORTS: &[&str] =
    &["", "", "1", "5432", "65535", "65536", "0", "-1", "%2B7", "+7", "%2082", "82%20", "1x", "99999999999"];
const NUMBERS: &[&str] = &[
    "",
    "0",
    "1",
    "10",
    "-1",
    "+5",
    " 7 ",
    "%207%09",
    "127",
    "128",
    "32767",
    "32768",
    "2147483647",
    "2147483648",
    "1s",
    "x",
];
const CHOICES: &[&str] = &[
    "",
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-full",
    "any",
    "primary",
    "read-write",
    "prefer-standby",
    "postgres",
    "direct",
    "random",
    "0",
    "1",
    "false",
    "true",
    "3.0",
    "latest",
    "prefe%72",
];
const ENCODINGS: &[&str] = &["", "UTF8", "utf-8", "Unicode", "LATIN1", "auto", "u_t_f_8", "UTF%38"];
const LISTS: &[&str] = &[
    "a",
    "a,b",
    "a,b,c",
    ",",
    "a,",
    "/run",
    "/run,b",
    "@x",
    "1",
    "1,2",
    ",2",
    "10.0.0.1",
    "10.0.0.1,::1",
    ",::1",
];
const JUNK: &[&str] = &["ssl", "requiressl", "what", "", "User", "user "];
/// Characters that a mutation puts in.
const MARKS: &[&str] =
    &["@", ":", "/", "?", "&", "=", "[", "]", ",", "%", "'", "\\", " ", "\n", "\t", "a", "0", "é"];

/// A connection string. `keywords` are those that libpq knows.
pub fn connection_string(random: &mut Random, keywords: &[String]) -> String {
    let mut text = if random.once_in(2) { uri(random, keywords) } else { keyword_values(random, keywords) };
    if random.once_in(3) {
        for _ in 0..=random.below(3) {
            mutate(random, &mut text);
        }
    }
    if random.once_in(10) {
        text.push_str(random.pick(&["\n", "\r\n", "\n\n", " "]));
    }
    text
}

fn uri(random: &mut Random, keywords: &[String]) -> String {
    let schemes = [
        "postgresql://",
        "postgresql://",
        "postgresql://",
        "postgres://",
        "postgres://",
        "Postgres://",
        "postgresql:/",
    ];
    let mut text = String::from(random.pick(&schemes));
    if random.once_in(2) {
        text.push_str(random.pick(PARTS));
        if random.once_in(2) {
            text.push(':');
            text.push_str(random.pick(PARTS));
        }
        text.push('@');
    }
    for index in 0..=random.below(3) {
        if index > 0 {
            text.push(',');
        }
        text.push_str(random.pick(HOSTS));
        if random.once_in(2) {
            text.push(':');
            text.push_str(random.pick(PORTS));
        }
    }
    if random.once_in(2) {
        text.push('/');
        text.push_str(random.pick(PARTS));
    }
    for index in 0..random.below(5) {
        text.push(if index == 0 { '?' } else { '&' });
        let (keyword, value) = parameter(random, keywords);
        text.push_str(&in_part_encoded(random, &keyword));
        text.push('=');
        text.push_str(&in_part_encoded(random, value));
    }
    text
}

fn keyword_values(random: &mut Random, keywords: &[String]) -> String {
    let mut text = String::from(random.pick(&["", " ", "host=db ", "host=a,b "]));
    for _ in 0..random.below(6) {
        let (keyword, value) = parameter(random, keywords);
        text.push_str(&keyword);
        text.push_str(random.pick(&["=", "=", "=", " = ", "\t=\n"]));
        if random.once_in(2) {
            text.push('\'');
            text.push_str(&value.replace('\\', "\\\\").replace('\'', "\\'"));
            text.push('\'');
        } else {
            text.push_str(value);
        }
        text.push_str(random.pick(&[" ", " ", " ", "  ", "\n", "\x0b", "\u{a0}", ""]));
    }
    text
}

fn parameter<'a>(random: &mut Random, keywords: &[String]) -> (String, &'a str) {
    let keyword = if random.once_in(20) {
        random.pick(JUNK).to_owned()
    } else {
        keywords[random.below(keywords.len())].clone()
    };
    let values = match &keyword[..] {
        _ if random.once_in(8) => PARTS,
        "host" | "hostaddr" | "port" => LISTS,
        "client_encoding" => ENCODINGS,
        name if name.contains("timeout") || name.starts_with("keepalives") => NUMBERS,
        name if name.contains("ssl") || name.contains("gss") => CHOICES,
        "channel_binding" | "target_session_attrs" | "load_balance_hosts" | "replication" => CHOICES,
        name if name.ends_with("protocol_version") => CHOICES,
        // Most of these are refused, and then nothing else is compared.
        "service" | "passfile" | "requirepeer" | "krbsrvname" | "require_auth" if !random.once_in(4) => &[""],
        _ => PARTS,
    };
    (keyword, random.pick(values))
}

/// The same with some of its bytes encoded.
fn in_part_encoded(random: &mut Random, text: &str) -> String {
    if !random.once_in(3) {
        return text.to_owned();
    }
    let encode = |byte: u8| if random.once_in(3) { format!("%{byte:02x}").into_bytes() } else { vec![byte] };
    let bytes: Vec<u8> = text.bytes().flat_map(encode).collect();
    // Between two bytes of one character it may have been cut.
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn mutate(random: &mut Random, text: &mut String) {
    let mut chars: Vec<char> = text.chars().collect();
    let at = random.below(chars.len() + 1);
    match random.below(4) {
        0 if at < chars.len() => drop(chars.remove(at)),
        1 if at < chars.len() => chars.insert(at, chars[at]),
        2 => chars.truncate(at),
        _ => chars.splice(at..at, random.pick(MARKS).chars()).for_each(drop),
    }
    *text = chars.into_iter().collect();
}

/// Characters that RFC 4013 maps, drops, decomposes, forbids or sets the direction by; then any.
pub fn password(random: &mut Random) -> String {
    const CHARS: &[char] = &[
        'a',
        'B',
        '1',
        ' ',
        '\u{7}',
        '\u{7f}',
        '\u{ad}',
        '\u{a0}',
        '\u{200b}',
        '\u{200d}',
        '\u{feff}',
        '\u{2168}',
        '\u{fb01}',
        '\u{627}',
        '\u{5d0}',
        '\u{661}',
        '\u{221}',
        '\u{e000}',
        '\u{340}',
        '\u{301}',
        'e',
        'é',
        '\u{212b}',
        '\u{ff21}',
        '\u{1100}',
        '\u{1161}',
        '\u{11a8}',
        '\u{fdfa}',
        '\u{2ff0}',
        '\u{fffd}',
        '\u{1f600}',
        '\u{10ffff}',
        '\u{3000}',
        '\u{1806}',
        '\u{034f}',
    ];
    (0..=random.below(5))
        .map(|_| match random.below(8) {
            0 => char::from_u32(random.below(0x11_0000) as u32).filter(|&char| char > '\0').unwrap_or('x'),
            1 => char::from_u32(1 + random.below(0xd7fe) as u32).unwrap_or('x'),
            _ => CHARS[random.below(CHARS.len())],
        })
        .collect()
}
