//! Paths of many images in little memory.

/// Relative paths in order: the names in one text, the folders once for each run
/// of names. A million images take some 20 MB.
#[derive(Default)]
pub(super) struct Paths {
    /// Where a folder begins, and its path; "" is the top.
    folders: Vec<(usize, String)>,
    names: String,
    /// Where each name ends in `names`.
    ends: Vec<usize>,
}

impl Paths {
    /// Begins a folder: the names that follow are in it.
    pub(super) fn enter(&mut self, folder: &str) {
        let same = self.folders.last().is_some_and(|(_, last)| last == folder);
        if !same {
            self.folders.push((self.len(), folder.to_owned()));
        }
    }

    /// Adds a file of the current folder.
    pub(super) fn push(&mut self, name: &str) {
        self.names.push_str(name);
        self.ends.push(self.names.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn folder(&self, i: usize) -> &str {
        let after = self.folders.partition_point(|(first, _)| *first <= i);
        let found = self.folders.get(after.wrapping_sub(1));
        found.map_or("", |(_, folder)| folder)
    }

    fn name(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)?;
        let start = match i {
            0 => 0,
            _ => *self.ends.get(i - 1)?,
        };
        self.names.get(start..end)
    }

    /// Path `i`, with `/` between its parts.
    pub(super) fn get(&self, i: usize) -> Option<String> {
        let (folder, name) = (self.folder(i), self.name(i)?);
        Some(if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        })
    }

    /// Appends the first `most` of `other`.
    pub(super) fn extend(&mut self, other: &Self, most: usize) {
        for i in 0..other.len().min(most) {
            self.enter(other.folder(i));
            self.push(other.name(i).unwrap_or_default());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    pub(super) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.folders.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_as_they_went_in() {
        let mut a = Paths::default();
        a.enter("train/cat");
        a.push("1.png");
        a.push("2.png");
        a.enter("train/cat/more");
        a.enter("train/dog");
        a.push("1.png");
        let all = |paths: &Paths| paths.iter().collect::<Vec<_>>();
        assert_eq!(
            all(&a),
            ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png"]
        );
        assert_eq!(a.get(3), None);
        let mut b = Paths::default();
        b.enter("");
        b.push("0.png");
        b.extend(&a, 2);
        assert_eq!(all(&b), ["0.png", "train/cat/1.png", "train/cat/2.png"]);
    }
}
