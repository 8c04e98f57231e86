//! Names, which come in two forms, and times.

use cairn_types::tree::FileTime;

use crate::bytes::le16;

/// Parts of a long name at most, and the characters of each.
const PARTS_MAX: usize = 20;
const PART_CHARACTERS: usize = 13;

/// The characters of code page 437 above ASCII: short names say nothing of their code page, and this one
/// is what Linux takes.
const CODE_PAGE: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A long name, of which the last part comes first and the short name behind the first.
pub(super) struct LongName {
    characters: [u16; PARTS_MAX * PART_CHARACTERS],
    /// How many parts it has; 0 where there is none.
    parts: usize,
    /// The number of the part that is due; 0 once it is whole.
    due: usize,
    checksum: u8,
}

impl Default for LongName {
    fn default() -> Self {
        Self {
            characters: [0; PARTS_MAX * PART_CHARACTERS],
            parts: 0,
            due: 0,
            checksum: 0,
        }
    }
}

impl LongName {
    pub(super) fn clear(&mut self) {
        self.parts = 0;
    }

    /// Takes one part; whatever is out of order drops the name.
    pub(super) fn add(&mut self, entry: &[u8]) {
        const LAST: u8 = 0x40;
        let number = usize::from(entry[0] & 0x1f);
        if !(1..=PARTS_MAX).contains(&number) {
            return self.clear();
        }
        if entry[0] & LAST != 0 {
            (self.parts, self.due, self.checksum) = (number, number, entry[13]);
        }
        if self.parts == 0 || number != self.due || entry[13] != self.checksum {
            return self.clear();
        }
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain([28, 30]);
        let part = &mut self.characters[(number - 1) * PART_CHARACTERS..][..PART_CHARACTERS];
        for (character, at) in part.iter_mut().zip(places) {
            *character = le16(entry, at);
        }
        self.due = number - 1;
    }

    /// The name of the short entry that follows, if it is whole and belongs to that.
    pub(super) fn take(&mut self, short: &[u8]) -> Option<String> {
        let parts = std::mem::take(&mut self.parts);
        if parts == 0 || self.due != 0 || checksum(short) != self.checksum {
            return None;
        }
        let characters = &self.characters[..parts * PART_CHARACTERS];
        let end = characters.iter().position(|one| *one == 0);
        let name = String::from_utf16_lossy(&characters[..end.unwrap_or(characters.len())]);
        (!name.is_empty()).then_some(name)
    }
}

/// What a long name has of the short one that it belongs to.
fn checksum(short: &[u8]) -> u8 {
    short[..11]
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The short name of an entry, in the case that its flags say.
pub(super) fn short(entry: &[u8]) -> String {
    const LOWER_BASE: u8 = 0x08;
    const LOWER_EXTENSION: u8 = 0x10;
    let mut base = [0; 8];
    base.copy_from_slice(&entry[..8]);
    // The first byte of such a name would be that of a deleted one.
    if base[0] == 0x05 {
        base[0] = 0xe5;
    }
    let mut name = part(&base, entry[12] & LOWER_BASE != 0);
    let extension = part(&entry[8..11], entry[12] & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    name
}

fn part(bytes: &[u8], lower: bool) -> String {
    let length = bytes
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(0, |last| last + 1);
    let decode = |byte: &u8| match byte {
        ..0x80 if lower => char::from(byte.to_ascii_lowercase()),
        ..0x80 => char::from(*byte),
        _ => CODE_PAGE
            .chars()
            .nth(usize::from(*byte) - 0x80)
            .unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    bytes[..length].iter().map(decode).collect()
}

/// A date and a time as an instant, taken as UTC.
pub(super) fn time(date: u16, time: u16) -> FileTime {
    let year = 1980 + i64::from(date >> 9);
    let month = i64::from(date >> 5 & 0xf).clamp(1, 12);
    let day = i64::from(date & 0x1f).max(1);
    let (hour, minute) = (i64::from(time >> 11), i64::from(time >> 5 & 0x3f));
    let second = i64::from(time & 0x1f) * 2;
    // Days since 1970 with years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    FileTime {
        seconds: days * 86400 + hour * 3600 + minute * 60 + second,
        nanoseconds: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_page_has_every_byte() {
        assert_eq!(CODE_PAGE.chars().count(), 128);
        let mut entry = *b"\x05A\x81     T\x9aT\x20\x08                    ";
        assert_eq!(short(&entry), "σaü.TÜT");
        entry[12] = 0x18;
        assert_eq!(short(&entry), "σaü.tÜt");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |year: u16, month: u16, day: u16| (year - 1980) << 9 | month << 5 | day;
        assert_eq!(time(date(1980, 1, 1), 0).seconds, 315_532_800);
        assert_eq!(time(date(2000, 2, 29), 0).seconds, 951_782_400);
        let noon = 12 << 11 | 34 << 5 | 28;
        assert_eq!(time(date(2026, 11, 22), noon).seconds, 1_795_350_896);
        // No date at all.
        assert_eq!(time(0, 0).seconds, 315_532_800);
    }

    #[test]
    fn a_long_name_out_of_order_is_none() {
        let short = *b"LONGNA~1TXT\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let part = |number: u8, letter: u8| {
            let mut entry = [0; 32];
            entry[0] = number;
            entry[11] = 0x0f;
            entry[13] = checksum(&short);
            for at in (1..11)
                .step_by(2)
                .chain((14..26).step_by(2))
                .chain([28, 30])
            {
                entry[at] = letter;
            }
            entry
        };
        let mut name = LongName::default();
        name.add(&part(0x42, b'b'));
        name.add(&part(0x01, b'a'));
        assert_eq!(name.take(&short).unwrap(), "aaaaaaaaaaaaabbbbbbbbbbbbb");
        assert_eq!(name.take(&short), None, "it was taken");
        name.add(&part(0x42, b'b'));
        assert_eq!(name.take(&short), None, "its first part is missing");
        name.add(&part(0x01, b'a'));
        assert_eq!(name.take(&short), None, "its last part is missing");
        name.add(&part(0x41, b'a'));
        assert_eq!(name.take(b"OTHER      \x20"), None, "it is another's");
    }
}
