//! The search by tags against a slow and plain reading of its rules.

use proptest::prelude::*;

use super::*;

fn tag(key: &str, value: &str) -> Tag {
    Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn is(key: &str, values: &[&str]) -> TagCondition {
    let values = values
        .iter()
        .map(|value| ValuePattern::Is((*value).to_owned()));
    TagCondition {
        key: key.to_owned(),
        values: values.collect(),
    }
}

#[test]
fn each_list_of_conditions_means_what_it_says() {
    let tags = [tag("env", "prod"), tag("team", "")];
    let (met, other) = (is("env", &["test", "prod"]), is("owner", &[]));
    for (query, taken) in [
        (TagQuery::default(), true),
        (
            TagQuery {
                tags: vec![met.clone(), is("team", &[])],
                ..TagQuery::default()
            },
            true,
        ),
        (
            TagQuery {
                tags: vec![met.clone(), other.clone()],
                ..TagQuery::default()
            },
            false,
        ),
        (
            TagQuery {
                tags_any: vec![met.clone(), other.clone()],
                ..TagQuery::default()
            },
            true,
        ),
        (
            TagQuery {
                not_tags: vec![met.clone(), other.clone()],
                ..TagQuery::default()
            },
            true,
        ),
        (
            TagQuery {
                not_tags_any: vec![met.clone(), other.clone()],
                ..TagQuery::default()
            },
            false,
        ),
        (
            TagQuery {
                without_any_tag: true,
                tags: vec![met.clone()],
                ..TagQuery::default()
            },
            false,
        ),
        (
            TagQuery {
                enterprise_projects: vec!["1".to_owned()],
                ..TagQuery::default()
            },
            false,
        ),
    ] {
        assert_eq!(query.takes(&tags, "0"), taken, "{query:?}");
    }
    let without = TagQuery {
        without_any_tag: true,
        tags: vec![met],
        ..TagQuery::default()
    };
    assert!(without.takes(&[], "0"), "the conditions do not count");
}

fn any_tags() -> impl Strategy<Value = Vec<Tag>> {
    let one = ("[ab]", "[xy]{0,2}").prop_map(|(key, value)| tag(&key, &value));
    prop::collection::vec(one, 0..3).prop_map(|mut tags| {
        tags.sort_by(|one, two| one.key.cmp(&two.key));
        tags.dedup_by(|one, two| one.key == two.key);
        tags
    })
}

fn any_conditions() -> impl Strategy<Value = Vec<TagCondition>> {
    let pattern = ("[xy]{0,2}", any::<bool>()).prop_map(|(text, part)| match part {
        true => ValuePattern::Contains(text),
        false => ValuePattern::Is(text),
    });
    let one = ("[ab]", prop::collection::vec(pattern, 0..3))
        .prop_map(|(key, values)| TagCondition { key, values });
    prop::collection::vec(one, 0..3)
}

/// The pairs that a condition allows, out of all that occur in these tests.
fn allowed(condition: &TagCondition) -> Vec<Tag> {
    let values = ["", "x", "y", "xx", "xy", "yx", "yy"];
    let fits = |value: &&&str| {
        condition.values.is_empty()
            || condition.values.iter().any(|pattern| match pattern {
                ValuePattern::Is(text) => **value == text,
                ValuePattern::Contains(text) => value.matches(text.as_str()).count() > 0,
            })
    };
    let fitting = values.iter().filter(fits);
    fitting.map(|value| tag(&condition.key, value)).collect()
}

/// How many conditions a vault meets, by looking for each allowed pair.
fn met(conditions: &[TagCondition], tags: &[Tag]) -> usize {
    let holds = |condition: &&TagCondition| allowed(condition).iter().any(|one| tags.contains(one));
    conditions.iter().filter(holds).count()
}

proptest! {
    #[test]
    fn a_search_takes_what_its_rules_say(
        tags in any_tags(),
        all in any_conditions(),
        some in any_conditions(),
        not_all in any_conditions(),
        none in any_conditions(),
        without_any_tag in prop::bool::weighted(0.1),
    ) {
        let expected = match without_any_tag {
            true => tags.is_empty(),
            false => {
                met(&all, &tags) == all.len()
                    && (some.is_empty() || met(&some, &tags) > 0)
                    && (not_all.is_empty() || met(&not_all, &tags) < not_all.len())
                    && met(&none, &tags) == 0
            }
        };
        let query = TagQuery {
            tags: all,
            tags_any: some,
            not_tags: not_all,
            not_tags_any: none,
            without_any_tag,
            enterprise_projects: Vec::new(),
        };
        prop_assert_eq!(query.takes(&tags, "0"), expected, "{:?} {:?}", query, tags);
    }
}
