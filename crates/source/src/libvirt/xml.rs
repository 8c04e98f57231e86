//! Writing XML: whatever comes from elsewhere is escaped here.

/// An element with attributes, and with what stands inside, which is XML already.
pub(crate) fn element(name: &str, attributes: &[(&str, &str)], inside: &str) -> String {
    let mut written = format!("<{name}");
    for (attribute, value) in attributes {
        written.push_str(&format!(" {attribute}='{}'", text(value)));
    }
    match inside.is_empty() {
        true => written.push_str("/>"),
        false => written.push_str(&format!(">{inside}</{name}>")),
    }
    written
}

/// Text as it may stand in an element or an attribute.
pub(crate) fn text(plain: &str) -> String {
    let mut written = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '&' => written.push_str("&amp;"),
            '<' => written.push_str("&lt;"),
            '>' => written.push_str("&gt;"),
            '\'' => written.push_str("&apos;"),
            '"' => written.push_str("&quot;"),
            // A reader takes these for spaces where they stand plain.
            '\t' | '\n' | '\r' => written.push_str(&format!("&#{};", character as u32)),
            _ => written.push(character),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_is_read_again() {
        let odd = "a'b\"c<d>&e\n\tf ü";
        let xml = element(
            "one",
            &[("at", odd), ("plain", "x")],
            &element("two", &[], &text(odd)),
        );
        let read = roxmltree::Document::parse(&xml).unwrap();
        assert_eq!(read.root_element().attribute("at"), Some(odd));
        assert_eq!(read.root_element().first_child().unwrap().text(), Some(odd));
        assert_eq!(element("three", &[], ""), "<three/>");
    }
}
