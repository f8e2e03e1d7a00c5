//! Words and lists that all data sets share.

use super::*;

#[test]
fn a_class_list_has_names_that_differ() {
    let list = |names: &[&str]| ClassList::new(names.iter().map(|n| (*n).to_owned()).collect());
    assert!(list(&["cat", "dog"]).is_ok());
    assert_eq!(list(&[]).unwrap_err().to_string(), "there is no class");
    assert_eq!(
        list(&["cat", " "]).unwrap_err().to_string(),
        "class 1 has an empty name"
    );
    assert_eq!(
        list(&["cat", "dog", "cat"]).unwrap_err().to_string(),
        "class `cat` is named twice"
    );
}

#[test]
fn counts_and_lists_read_well() {
    assert_eq!(count(1, "file", "files"), "1 file");
    assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
    assert_eq!(count(123, "file", "files"), "123 files");
    assert_eq!(listed(&["a", "b", "c"], 2), "`a`, `b` and 1 more");
    assert_eq!(listed(&["a", "b"], 2), "`a`, `b`");
}

#[test]
fn paths_below_the_current_folder_are_shown_from_there() {
    let here = env::current_dir().unwrap();
    assert_eq!(shown(&here.join("data/x")), "data/x");
    assert_eq!(shown(Path::new("/elsewhere/x")), "/elsewhere/x");
    assert_eq!(shown(&here), here.display().to_string());
}
