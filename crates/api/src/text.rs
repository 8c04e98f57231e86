//! Numbers and truths that CBR writes as strings. For use with
//! `#[serde(with = "...")]`.

/// A whole number in decimal digits in a string, such as `"40"`.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a number as a string.
    pub fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    /// Reads a number from a string.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// `"true"` or `"false"`, a string.
pub mod truth {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a truth as a string.
    pub fn serialize<S: Serializer>(truth: &bool, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if *truth { "true" } else { "false" })
    }

    /// Reads a truth from a string.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Texts {
        #[serde(with = "super::decimal")]
        size: u64,
        #[serde(with = "super::truth")]
        incremental: bool,
    }

    #[test]
    fn numbers_and_truths_are_strings() {
        let text = serde_json::to_string(&Texts {
            size: 40,
            incremental: true,
        })
        .unwrap();
        assert_eq!(text, r#"{"size":"40","incremental":"true"}"#);
        let read: Texts = serde_json::from_str(&text).unwrap();
        assert!(read.incremental && read.size == 40);
        assert!(serde_json::from_str::<Texts>(r#"{"size":40,"incremental":"true"}"#).is_err());
    }
}
