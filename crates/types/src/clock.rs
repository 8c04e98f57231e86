//! Instants, and where they come from.

use jiff::fmt::strtime;

/// An instant, in microseconds since 1970-01-01T00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Where the time comes from. The one real clock is made in `main`; tests own
/// theirs, so that nothing waits for time to pass.
pub trait Clock: Send + Sync {
    /// The instant now.
    fn now(&self) -> Timestamp;
}

/// A text that is not an instant, or an instant out of the years 0 to 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an instant: {0:?}")]
pub struct TimestampError(String);

impl Timestamp {
    /// An instant by its microseconds since 1970 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970 UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The instant `micros` later (earlier, if negative).
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// The instant `seconds` later (earlier, if negative).
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// The instant `months` later by the calendar; the last day of a month that is too short.
    pub fn plus_months(self, months: u32) -> Self {
        let instant = jiff::Timestamp::from_microsecond(self.0)
            .expect("an instant of the catalogue lies in the years 0 to 9999");
        let span = jiff::Span::new().months(months);
        let later = instant
            .to_zoned(jiff::tz::TimeZone::UTC)
            .saturating_add(span);
        Self(later.timestamp().as_microsecond())
    }

    /// Seconds from `earlier` until this instant; negative if it lies before.
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0).div_euclid(1_000_000)
    }

    /// The instant in a `strftime` form, in UTC.
    pub fn format(self, form: &str) -> String {
        let instant = jiff::Timestamp::from_microsecond(self.0)
            .expect("an instant of the catalogue lies in the years 0 to 9999");
        strtime::format(form, instant).expect("the form is one of ours")
    }

    /// The instant to the second with a `Z`, such as `2019-05-10T07:59:12Z`: what is written a
    /// hundred thousand times over is not formatted by a form.
    pub fn to_zulu(self) -> String {
        let instant = jiff::Timestamp::from_microsecond(self.0)
            .expect("an instant of the catalogue lies in the years 0 to 9999");
        let shown = jiff::tz::Offset::UTC.to_datetime(instant);
        let mut text = *b"0000-00-00T00:00:00Z";
        let mut put = |at: usize, width: usize, mut number: u16| {
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, shown.year().unsigned_abs());
        let parts = [
            shown.month(),
            shown.day(),
            shown.hour(),
            shown.minute(),
            shown.second(),
        ];
        for (place, part) in parts.into_iter().enumerate() {
            put(5 + 3 * place, 2, part.unsigned_abs().into());
        }
        String::from_utf8(text.into()).expect("it is made of ASCII digits")
    }

    /// Reads an instant in UTC by a `strptime` form without an offset.
    ///
    /// Errors: the text is not of that form, or no instant.
    pub fn parse(form: &str, text: &str) -> Result<Self, TimestampError> {
        let wrong = || TimestampError(text.chars().take(64).collect());
        let civil = strtime::parse(form, text)
            .and_then(|parsed| parsed.to_datetime())
            .map_err(|_| wrong())?;
        let zoned = civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map_err(|_| wrong())?;
        Ok(Self(zoned.timestamp().as_microsecond()))
    }

    /// Reads an instant as RFC 3339 has it, such as `2026-01-01T00:00:00Z` or
    /// `2026-01-01T08:00:00.5+08:00`.
    ///
    /// Errors: the text is not of that form, or no instant.
    pub fn from_rfc3339(text: &str) -> Result<Self, TimestampError> {
        let wrong = || TimestampError(text.chars().take(64).collect());
        // What is more than RFC 3339, jiff reads too.
        let is_form = |form: &[u8], text: &[u8]| {
            let fits = |(form, byte): (&u8, &u8)| match form {
                b'0' => byte.is_ascii_digit(),
                form => byte.eq_ignore_ascii_case(form) || (*form == b'T' && *byte == b' '),
            };
            form.len() == text.len() && form.iter().zip(text).all(fits)
        };
        let (front, rest) = text.as_bytes().split_at_checked(19).ok_or_else(wrong)?;
        let digits = match rest {
            [b'.', rest @ ..] => 1 + rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => 0,
        };
        let offset = &rest[digits..];
        let offsets: [&[u8]; 3] = [b"Z", b"+00:00", b"-00:00"];
        let is_offset = offsets.iter().any(|form| is_form(form, offset));
        if !is_form(b"0000-00-00T00:00:00", front) || !is_offset {
            return Err(wrong());
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        Ok(Self(instant.as_microsecond()))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.format("%Y-%m-%dT%H:%M:%S.%6f"))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        i64::deserialize(from).map(Self)
    }
}

/// On the wire: naive UTC with microseconds.
impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .pattern(Some(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"))
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_as_naive_utc_microseconds() {
        let instant = Timestamp::from_micros(1_557_475_152_733_403);
        assert_eq!(instant.to_string(), "2019-05-10T07:59:12.733403");
        let whole = Timestamp::from_micros(1_557_475_152_000_000);
        assert_eq!(whole.to_string(), "2019-05-10T07:59:12.000000");
    }

    #[test]
    fn an_instant_is_read_by_its_form() {
        let read = Timestamp::parse("%Y-%m-%dT%H:%M:%SZ", "2019-05-10T07:59:12Z").unwrap();
        assert_eq!(read.as_micros(), 1_557_475_152_000_000);
        assert!(Timestamp::parse("%Y-%m-%dT%H:%M:%SZ", "yesterday").is_err());
    }

    #[test]
    fn the_short_form_is_what_its_form_says() {
        for second in (0..253_402_128_000).step_by(987_654_321) {
            let instant = Timestamp::from_micros(second * 1_000_000 + 999_999);
            assert_eq!(instant.to_zulu(), instant.format("%Y-%m-%dT%H:%M:%SZ"));
        }
    }

    #[test]
    fn an_instant_is_read_as_rfc_3339_has_it() {
        let wanted = Timestamp::from_micros(1_557_475_152_733_403);
        for good in [
            "2019-05-10T07:59:12.733403Z",
            "2019-05-10t07:59:12.733403z",
            "2019-05-10 09:59:12.733403+02:00",
            "2019-05-10T04:29:12.7334030-03:30",
        ] {
            assert_eq!(Timestamp::from_rfc3339(good), Ok(wanted), "{good}");
        }
        for bad in [
            "",
            "2019-05-10",
            "2019-05-10T07:59:12",
            "2019-05-10T07:59Z",
            "20190510T075912Z",
            "2019-05-10T07:59:12+02",
            "2019-05-10T07:59:12+0200",
            "2019-02-30T07:59:12Z",
            "2019-05-10T25:59:12Z",
            "2019-05-10T07:59:12+02:00[Europe/Berlin]",
            "+002019-05-10T07:59:12Z",
            "2019-05-10T07:59:12Zé",
            "2019-05-10T07:59:12é",
        ] {
            assert!(Timestamp::from_rfc3339(bad).is_err(), "{bad}");
        }
    }
}
