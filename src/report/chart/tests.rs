//! Tests of the charts: golden drawings, what is left out, markup, colours.

mod any;
mod samples;

use self::{any::check, samples::*};
use super::*;
use crate::table::{Cell, Draw, Table};

/// Writes a page for looking at: `RUNNER_PAGES=folder cargo test charts_to_look_at`.
#[test]
fn charts_to_look_at() {
    let mut body = String::new();
    for chart in [
        rounds(),
        log(),
        many(),
        worded(false),
        worded(true),
        one(),
        negative(),
        Lines::default(),
    ] {
        body += &format!(
            "<figure class=\"card\"><div class=\"scroll\">{}</div></figure>\n",
            lines(&chart)
        );
    }
    for chart in [airplane(), mixed()] {
        body += &format!(
            "<figure class=\"card\"><div class=\"scroll\">{}</div></figure>\n",
            bars(&chart)
        );
    }
    body += &format!("<figure class=\"card\">{}</figure>\n", curves(&trainings()));
    for table in [
        shares(&["0", "1", "2", "3"]),
        shares(&["3", "10", "30", "100"]),
        temperatures(),
        ranked(),
        changes(),
    ] {
        for draw in [Draw::Lines, Draw::Bars, Draw::Heat] {
            body += &format!(
                "<figure class=\"card\">{}{}</figure>\n",
                table.to_html(),
                of_table(&table, draw).unwrap()
            );
        }
    }
    assert_eq!(body.matches("<svg").count(), body.matches("</svg>").count());
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>charts</title><style>{}</style><body><main>{body}</main></body></html>",
        include_str!("../page.css")
    );
    if let Some(folder) = std::env::var_os("RUNNER_PAGES") {
        std::fs::write(std::path::Path::new(&folder).join("charts.html"), page).unwrap();
    }
}

#[test]
fn known_charts_are_drawn_as_before() {
    let line_charts = [
        ("rounds", rounds()),
        ("log", log()),
        ("words", worded(false)),
        ("long_words", worded(true)),
        ("one", one()),
        ("negative", negative()),
        ("nothing", Lines::default()),
    ];
    for (name, chart) in line_charts {
        check(&lines(&chart));
        insta::assert_snapshot!(name, lines(&chart));
    }
    for (name, chart) in [("airplane", airplane()), ("signed_bars", mixed())] {
        check(&bars(&chart));
        insta::assert_snapshot!(name, bars(&chart));
    }
    check(&lines(&many()));
    insta::assert_snapshot!("curves", curves(&trainings()));
}

#[test]
fn a_table_gives_the_chart_that_is_asked_for() {
    for (name, draw) in [
        ("table_lines", Draw::Lines),
        ("table_bars", Draw::Bars),
        ("table_heat", Draw::Heat),
    ] {
        insta::assert_snapshot!(
            name,
            of_table(&shares(&["0", "1", "2", "3"]), draw).unwrap()
        );
    }
    let words = of_table(&shares(&["plain", "best"]), Draw::Lines).unwrap();
    assert!(words.contains(">plain</text>") && !words.contains("(logarithmic)"));
    let log = of_table(&shares(&["3", "10", "30", "100"]), Draw::Lines).unwrap();
    assert!(log.contains("round (logarithmic)"));
}

#[test]
fn kept_candidates_are_accented() {
    let svg = of_table(&ranked(), Draw::Bars).unwrap();
    check(
        svg.split_inclusive("</svg>")
            .next()
            .unwrap()
            .trim_start_matches("<div class=\"scroll\" tabindex=\"0\">\n"),
    );
    assert_eq!(svg.matches("\"bar muted\"").count(), 7);
    assert!(svg.contains(">✓ kept</text>") && !svg.contains("kept."));
    insta::assert_snapshot!(svg);
}

#[test]
fn differences_from_a_baseline_are_in_percentage_points() {
    let svg = of_table(&changes(), Draw::Lines).unwrap();
    assert_eq!(svg.matches("<svg").count(), 2, "shares and differences");
    assert!(svg.contains(">eval.difference, percentage points</text>"));
    assert!(svg.contains(">eval.top1, %</text>"));
}

#[test]
fn units_and_sizes_get_charts_of_their_own() {
    let html = of_table(&temperatures(), Draw::Lines).unwrap();
    assert_eq!(html.matches("<svg").count(), 3, "percent, counts, few");
    assert!(html.contains("Free answers: attempts, distinct attributes"));
    let heat = of_table(&temperatures(), Draw::Heat).unwrap();
    assert!(heat.contains("lowest of a column"));
}

#[test]
fn a_table_without_numbers_has_no_chart() {
    let mut table = shares(&["0", "1"]);
    table
        .rows
        .iter_mut()
        .for_each(|row| row[1..].fill(Cell::missing()));
    for draw in [Draw::Lines, Draw::Bars, Draw::Heat] {
        assert_eq!(of_table(&table, draw), None);
        assert_eq!(of_table(&Table::default(), draw), None);
    }
    assert_eq!(curves(&[]), "");
}

#[test]
fn ours_minus_the_published_figure_is_left_out_but_not_a_value_of_that_name() {
    let html = of_table(&shares(&["0", "1"]), Draw::Heat).unwrap();
    assert!(!html.contains("difference") && html.contains("published"));
    let mut table = shares(&["0", "1"]);
    table.columns[2].head = "eval.top5".into();
    let html = of_table(&table, Draw::Heat).unwrap();
    assert!(html.contains("difference"));
}

#[test]
fn a_published_series_shares_colour_and_shape_with_ours() {
    let svg = lines(&rounds());
    assert_eq!(
        svg.matches("\"line c0 dashed\"").count(),
        2,
        "plot and legend"
    );
    assert!(svg.contains("\"line c1\"") && !svg.contains("c2"));
}

#[test]
fn what_is_left_out_is_said() {
    let svg = lines(&log());
    assert!(svg.contains("1 point has no number."));
    assert!(svg.contains("1 point is left out: a logarithmic axis"));
    assert!(lines(&many()).contains("1 more series is left out"));
    assert!(lines(&Lines::default()).contains("There is nothing to draw."));
}

#[test]
fn markup_from_outside_stays_text() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    let mut chart = rounds();
    (chart.title, chart.x_label, chart.y_label) = (evil.into(), evil.into(), evil.into());
    chart.series[0].name = evil.into();
    chart.notes = vec![evil.into()];
    chart.x = X::Words(vec![evil.into(); 4]);
    let mut list = airplane();
    list.groups[0].0 = evil.into();
    (list.groups[0].1[0].label, list.groups[0].1[0].detail) = (evil.into(), evil.into());
    let mut table = shares(&[evil, "b"]);
    table.title = evil.into();
    table.columns[1].head = evil.into();
    table.rows[0][1].detail = evil.into();
    let curve = Curve {
        name: evil.into(),
        points: vec![(1.0, 2.0, 3.0)],
    };
    let mut all = vec![lines(&chart), bars(&list), curves(&[curve.clone(), curve])];
    all.extend([Draw::Lines, Draw::Bars, Draw::Heat].map(|draw| of_table(&table, draw).unwrap()));
    for html in all {
        assert!(!html.contains("<script") && !html.contains("<img"));
        assert!(!html.contains("\"'&gt;"));
    }
}

#[test]
fn every_series_can_be_seen_in_both_themes() {
    let luminance = |hex: &str| {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    };
    let css = include_str!("../page.css");
    let pair = |name: &str| {
        let start = css.find(&format!("--{name}: light-dark(")).unwrap();
        let inside = css[start..].split(['(', ')']).nth(1).unwrap();
        let colors: Vec<_> = inside.split(", ").map(|c| luminance(&c[1..])).collect();
        [colors[0], colors[1]]
    };
    let names = (0..MOST_SERIES).map(|i| format!("c{i}"));
    for name in names.chain(["up".to_owned(), "down".to_owned()]) {
        for (color, card) in pair(&name).iter().zip(pair("card")) {
            let contrast = (color.max(card) + 0.05) / (color.min(card) + 0.05);
            assert!(contrast >= 4.5, "{name}: {contrast:.2}");
        }
    }
}
