//! The exact names of a policy, for fast lookups and searches for near names.

use rapidfuzz::distance::osa;

/// Maximum number of edits between near names.
pub(super) const MAX_NEAR_EDITS: usize = 3;

/// Names in order, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct NameList {
    names: Vec<Box<str>>,
    /// The profile of each name, apart from it: a search of all profiles reads little memory.
    profiles: Vec<Profile>,
}

impl NameList {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// The `most` nearest within [`MAX_NEAR_EDITS`], and those with the longest shared prefix.
    pub(super) fn candidates(&self, name: &str, most: usize) -> impl Iterator<Item = &str> {
        let place = self.position(name).unwrap_or_else(|place| place);
        let around = place.saturating_sub(most)..self.len().min(place + most);
        let mut near = self.near(name);
        near.sort_unstable();
        near.truncate(most);
        let near = near.into_iter().map(|(_, index)| index);
        near.chain(around).map(|index| self.names[index].as_ref())
    }

    /// The names that are [`MAX_NEAR_EDITS`], each with the number of edits between.
    fn near(&self, name: &str) -> Vec<(usize, usize)> {
        let profile = Profile::of(name);
        let comparator = osa::BatchComparator::new(name.chars());
        let cutoff = osa::Args::default().score_cutoff(MAX_NEAR_EDITS);
        let profiles = self.profiles.iter().enumerate();
        let possible =
            profiles.filter(|(_, known)| known.least_distance(profile) <= MAX_NEAR_EDITS);
        let compared = possible.filter_map(|(index, _)| {
            let edits = comparator.distance_with_args(self.names[index].chars(), &cutoff)?;
            Some((edits, index))
        });
        compared.collect()
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.names
            .binary_search_by(|known| known.as_ref().cmp(name))
    }
}

impl<'a> FromIterator<&'a str> for NameList {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut names: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        let profiles = names.iter().map(|name| Profile::of(name)).collect();
        Self { names, profiles }
    }
}

/// Length of a name, and which characters it has.
#[derive(Clone, Copy, Debug)]
struct Profile {
    characters: u64,
    length: usize,
}

impl Profile {
    fn of(name: &str) -> Self {
        let characters = name
            .chars()
            .fold(0, |all, c| all | 1 << (u32::from(c) % 64));
        let length = name.chars().count();
        Self { characters, length }
    }

    /// No fewer edits make one name of the other: each adds or removes a character, or both.
    fn least_distance(self, other: Self) -> usize {
        let added = (self.characters & !other.characters).count_ones();
        let removed = (other.characters & !self.characters).count_ones();
        let by_characters = added.max(removed) as usize;
        by_characters.max(self.length.abs_diff(other.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_and_no_other() {
        let list: NameList = ["b", "a", "c", "a"].into_iter().collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(list.contains("a") && list.contains("c"));
        assert!(!list.contains("") && !list.contains("aa") && !list.contains("d"));
        assert!(!NameList::default().contains("a"));
    }

    #[test]
    fn the_least_distance_is_never_more_than_the_distance() {
        let names = [
            "",
            "a",
            "app1",
            "appp1",
            "ap1p",
            "payments",
            "payment-api",
            "web",
            "wbe",
            "ö",
            "app-1-x",
        ];
        for a in names {
            for b in names {
                let least = Profile::of(a).least_distance(Profile::of(b));
                assert!(least <= osa::distance(a.chars(), b.chars()), "{a} {b}");
            }
        }
    }

    #[test]
    fn candidates_are_the_near_ones_and_those_with_the_longest_common_beginning() {
        let numbers = (0..1000).map(|n| format!("service-{n:04}"));
        let mut names: Vec<_> = numbers.collect();
        names.extend(["xervice", "payments-eu", "payment-usa"].map(str::to_owned));
        let list: NameList = names.iter().map(String::as_str).collect();
        let found = |name: &str, most| list.candidates(name, most).collect::<Vec<_>>();
        assert_eq!(found("service", 1)[0], "xervice");
        let near = found("service-0500", 10);
        assert_eq!((near[0], near.len()), ("service-0500", 30));
        assert_eq!(
            found("payments-production", 1),
            ["payments-eu", "service-0000"]
        );
    }
}
