//! Which groups there are to be: a pure function of the packs and the groups that there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::pack::PackId;

use super::Parity;
use super::group::{Group, GroupId, Member};

/// So many groups with room for more packs may there be before they are made into full ones.
const PARTIAL_GROUPS: usize = 4;

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Groups to be made.
    pub make: Vec<Vec<Member>>,
    /// Groups whose objects go.
    pub drop: Vec<GroupId>,
}

/// Plans so that in the end every pack is in one group that has all of its packs
/// and parity objects. Without a setting, groups only go: with their packs.
pub(super) fn plan(
    packs: &BTreeMap<PackId, u64>,
    mut groups: Vec<Group>,
    setting: Option<Parity>,
) -> Plan {
    let mut plan = Plan::default();
    let there = |member: &Member| packs.get(&member.pack) == Some(&member.bytes);
    let Some(Parity { data, parity }) = setting else {
        groups.retain(|group| !group.members.iter().all(there));
        plan.drop = groups.iter().map(|group| group.id).collect();
        return plan;
    };
    groups.sort_by_key(|group| (Reverse(group.members.len()), group.id));
    let (mut covered, mut partial) = (BTreeSet::new(), Vec::new());
    for group in groups {
        let is_sound = group.is_complete()
            && usize::from(group.parity) == parity
            && group.members.len() <= data
            && group.members.iter().all(there);
        let is_new = |member: &Member| !covered.contains(&member.pack);
        if !is_sound || !group.members.iter().any(is_new) {
            plan.drop.push(group.id);
            continue;
        }
        covered.extend(group.members.iter().map(|member| member.pack));
        if group.members.len() < data {
            partial.push(group);
        }
    }
    let mut loose: BTreeMap<PackId, u64> = packs.clone();
    loose.retain(|pack, _| !covered.contains(pack));
    let in_partial: usize = partial.iter().map(|group| group.members.len()).sum();
    let fills = loose.len() + in_partial >= data;
    if !loose.is_empty() && (fills || partial.len() >= PARTIAL_GROUPS) {
        for group in partial {
            plan.drop.push(group.id);
            loose.extend(
                group
                    .members
                    .iter()
                    .map(|member| (member.pack, member.bytes)),
            );
        }
    }
    // Packs of like length together: a parity object is as long as the longest.
    let mut loose: Vec<Member> = loose
        .into_iter()
        .map(|(pack, bytes)| Member { pack, bytes })
        .collect();
    loose.sort_by_key(|member| (Reverse(member.bytes), member.pack));
    plan.make = loose.chunks(data).map(<[Member]>::to_vec).collect();
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTING: Parity = Parity { data: 4, parity: 2 };

    fn member(number: u8) -> Member {
        Member {
            pack: PackId([number; 16]),
            bytes: 100 + u64::from(number),
        }
    }

    fn group(id: u8, members: &[u8], objects: u8) -> Group {
        let members: Vec<Member> = members.iter().copied().map(member).collect();
        let mut group = Group::new(GroupId([id; 16]), 2, members);
        group.found = (0..objects).collect();
        group
    }

    /// The groups that a plan leads to.
    fn carried_out(plan: &Plan, groups: &[Group]) -> Vec<Group> {
        let stay = groups.iter().filter(|group| !plan.drop.contains(&group.id));
        let made = (0..).zip(&plan.make).map(|(number, members)| {
            let mut group = Group::new(GroupId([200 + number; 16]), 2, members.clone());
            group.found = (0..2).collect();
            group
        });
        stay.cloned().chain(made).collect()
    }

    proptest! {
        #[test]
        fn in_the_end_every_pack_is_protected_and_nothing_is_left_to_do(
            there in prop::collection::btree_set(0..40u8, 0..40),
            groups in prop::collection::vec(
                (prop::collection::btree_set(0..40u8, 1..5), 1..=2u8), 0..12,
            ),
        ) {
            let packs: BTreeMap<PackId, u64> =
                there.iter().map(|n| (member(*n).pack, member(*n).bytes)).collect();
            let groups: Vec<Group> = (0..).zip(&groups).map(|(id, (members, objects))| {
                group(id, &Vec::from_iter(members.iter().copied()), *objects)
            }).collect();
            let first = plan(&packs, groups.clone(), Some(SETTING));
            let after = carried_out(&first, &groups);
            for pack in packs.keys() {
                let of = after.iter().filter(|g| g.members.iter().any(|m| m.pack == *pack));
                let sound = of.filter(|g| {
                    g.is_complete() && g.members.iter().all(|m| packs.contains_key(&m.pack))
                });
                prop_assert!(sound.count() > 0, "a pack is in no group");
            }
            prop_assert_eq!(plan(&packs, after, Some(SETTING)), Plan::default());
        }
    }

    #[test]
    fn groups_with_room_are_made_full_once_there_is_enough() {
        let packs = |numbers: &[u8]| {
            let packs = numbers.iter().map(|n| (member(*n).pack, member(*n).bytes));
            packs.collect::<BTreeMap<_, _>>()
        };
        let first = group(1, &[1, 2], 2);
        let later = plan(&packs(&[1, 2, 3]), vec![first.clone()], Some(SETTING));
        assert_eq!(later.make, [vec![member(3)]]);
        assert_eq!(later.drop, []);
        let groups = vec![first.clone(), group(2, &[3], 2)];
        let full = plan(&packs(&[1, 2, 3, 4]), groups, Some(SETTING));
        assert_eq!(
            full.make,
            [vec![member(4), member(3), member(2), member(1)]]
        );
        assert_eq!(full.drop.len(), 2);
    }

    #[test]
    fn without_a_setting_groups_go_with_their_packs() {
        let packs = BTreeMap::from([(member(1).pack, member(1).bytes)]);
        let groups = vec![group(1, &[1], 2), group(2, &[2], 2)];
        let plan = plan(&packs, groups, None);
        assert_eq!(plan.drop, [GroupId([2; 16])]);
        assert_eq!(plan.make, Vec::<Vec<Member>>::new());
    }
}
