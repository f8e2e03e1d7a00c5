//! Any chart whatsoever: its markup is whole and all of it lies within it.

use proptest::prelude::*;

use super::super::*;

/// Attributes of an element's tag.
fn attributes(tag: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = tag.split_once(' ').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"').expect("a quote that is closed");
        out.push((name.trim().to_owned(), value.to_owned()));
        rest = after;
    }
    assert!(rest.trim_matches(['/', ' ']).is_empty(), "{tag}");
    out
}

/// Every start tag of `xml` with the text after it; fails unless `xml` is well formed.
fn elements(xml: &str) -> Vec<(String, String)> {
    let mut open: Vec<String> = Vec::new();
    let mut out = Vec::new();
    assert!(xml.starts_with('<'));
    for piece in xml.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag that is closed");
        for entity in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
            let (name, _) = entity.split_once(';').expect("an entity");
            assert!(
                name.starts_with("#x") || ["amp", "lt", "gt", "quot"].contains(&name),
                "{name}"
            );
        }
        let control = |c: char| c.is_control() && c != '\n' || c == '\u{fffe}' || c == '\u{ffff}';
        assert!(!piece.contains(control), "{piece:?}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        if !tag.ends_with('/') {
            open.push(name);
        }
        out.push((tag.to_owned(), text.to_owned()));
    }
    assert!(open.is_empty(), "{open:?}");
    out
}

/// Fails unless `svg` is well formed, and all lines, shapes and words (by their
/// estimated widths) lie within its view box.
pub(super) fn check(svg: &str) {
    let all = elements(svg);
    let root = attributes(&all[0].0);
    let view = &root.iter().find(|(name, _)| name == "viewBox").unwrap().1;
    let view: Vec<f64> = view.split(' ').map(|n| n.parse().unwrap()).collect();
    let (wide, high) = (view[2], view[3]);
    let inside = |x: f64, y: f64, tag: &str| {
        let fits = (-0.1..=wide + 0.1).contains(&x) && (-0.1..=high + 0.1).contains(&y);
        assert!(fits, "({x}, {y}) is outside {wide} × {high}: {tag}");
    };
    assert!(root.contains(&("role".to_owned(), "img".to_owned())));
    assert!(all[1].0 == "title" && all[2].0 == "desc", "{:?}", &all[..3]);
    for (tag, text) in &all[1..] {
        let list = attributes(tag);
        let get = |name: &str| {
            let found = list.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.clone())
        };
        assert!(get("style").is_none() && get("fill").is_none());
        let number = |name: &str| -> f64 { get(name).unwrap().parse().unwrap() };
        match tag.split([' ', '/']).next().unwrap() {
            "title" | "desc" => {}
            "line" => {
                inside(number("x1"), number("y1"), tag);
                inside(number("x2"), number("y2"), tag);
            }
            "rect" => {
                inside(number("x"), number("y"), tag);
                inside(
                    number("x") + number("width"),
                    number("y") + number("height"),
                    tag,
                );
            }
            "path" => {
                let d = get("d").unwrap();
                for point in d
                    .trim_end_matches('z')
                    .split(['M', 'L'])
                    .filter(|p| !p.is_empty())
                {
                    let (x, y) = point.split_once(' ').unwrap();
                    inside(x.parse().unwrap(), y.parse().unwrap(), tag);
                }
            }
            "text" => {
                let words = html_escape::decode_html_entities(text.trim_end());
                let long = text::width(&words);
                let (x, y) = (number("x"), number("y"));
                let (from, to) = match get("text-anchor").as_deref() {
                    Some("middle") => (x - long / 2.0, x + long / 2.0),
                    Some("end") if get("transform").is_some() => (x - long * 0.766, x),
                    Some("end") => (x - long, x),
                    _ => (x, x + long),
                };
                let low = match get("transform") {
                    Some(_) => y + long * 0.643,
                    None => y,
                };
                inside(from, y - 8.0, tag);
                inside(to, low, tag);
            }
            other => panic!("an element `{other}`"),
        }
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -100.0..100.0,
        2 => (-20i32..20).prop_map(f64::from),
        2 => any::<f64>(),
        1 => prop_oneof![
            Just(f64::NAN), Just(f64::INFINITY), Just(-f64::INFINITY), Just(0.0), Just(-0.0),
            Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(1e-320), Just(1e100), Just(-1e100)
        ],
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_. ]{0,12}", "\\PC{0,80}", any::<String>()]
}

fn a_point() -> impl Strategy<Value = Point> {
    let end = || proptest::option::of(number());
    let mark = prop_oneof![3 => Just(""), 1 => Just("*"), 1 => Just("*†")];
    (number(), number(), end(), end(), mark).prop_map(|(x, y, low, high, mark)| Point {
        x,
        y,
        low,
        high,
        mark,
    })
}

fn a_line_chart() -> impl Strategy<Value = Lines> {
    let series = (
        name(),
        proptest::collection::vec(a_point(), 0..40),
        any::<bool>(),
    )
        .prop_map(|(name, points, dashed)| Series {
            name,
            points,
            dashed,
        });
    let x = prop_oneof![
        Just(X::Numbers),
        proptest::collection::vec(name(), 0..40).prop_map(X::Words)
    ];
    let words = (
        name(),
        name(),
        name(),
        name(),
        proptest::collection::vec(name(), 0..3),
    );
    (
        words,
        x,
        any::<[bool; 2]>(),
        proptest::collection::vec(series, 0..14),
    )
        .prop_map(
            |((title, x_label, y_label, spread, notes), x, [titled, x_log], series)| Lines {
                title,
                titled,
                x_label,
                y_label,
                x,
                x_log,
                spread,
                series,
                notes,
            },
        )
}

fn a_bar_chart() -> impl Strategy<Value = Bars> {
    let end = || proptest::option::of(number());
    let bar = (name(), number(), end(), end(), any::<bool>(), name()).prop_map(
        |(label, value, low, high, chosen, detail)| Bar {
            label,
            value,
            low,
            high,
            chosen,
            detail,
        },
    );
    let group = (name(), proptest::collection::vec(bar, 0..8));
    let words = (
        name(),
        name(),
        name(),
        name(),
        proptest::collection::vec(name(), 0..3),
    );
    (words, any::<bool>(), proptest::collection::vec(group, 0..5)).prop_map(
        |((title, x_label, spread, chosen, notes), titled, groups)| Bars {
            title,
            titled,
            x_label,
            spread,
            chosen,
            groups,
            notes,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_of_any_line_chart_lies_within_it(chart in a_line_chart()) {
        check(&lines(&chart));
        check(&lines::draw(&chart, lines::Frame { width: 480.0, plot: 190.0, legend: true }));
    }

    #[test]
    fn all_of_any_bar_chart_lies_within_it(chart in a_bar_chart()) {
        check(&bars(&chart));
        check(&bars::draw(&chart, 480.0));
    }
}
