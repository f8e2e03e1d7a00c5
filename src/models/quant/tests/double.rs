//! Scales quantised twice, against both ways in which bitsandbytes does it.

use super::*;

#[test]
fn the_dynamic_table_is_that_of_bitsandbytes() {
    let fixture = Fixture::open("quant/double.safetensors");
    assert_same(&dynamic_map(), &fixture.f32s("map"), "map");
}

#[test]
fn scales_are_quantised_as_by_bitsandbytes_search() {
    let fixture = Fixture::open("quant/double.safetensors");
    for case in fixture.cases("absmax") {
        let scales = fixture.f32s(&format!("{case}.absmax"));
        let offset = fixture.f32s(&format!("{case}.offset"))[0];
        let nested = Nested::with_offset(&scales, offset);
        let most = fixture.f32s(&format!("{case}.nested_absmax"));
        assert_same(nested.absmax(), &most, &case);
        assert_eq!(
            nested.codes(),
            fixture.bytes(&format!("{case}.by_search")),
            "{case}"
        );
        // The mean alone depends on the order of a sum.
        let ours = Nested::quantize(&scales).unwrap().offset();
        assert!(
            (ours - offset).abs() <= 1e-6 * offset,
            "{case}: {ours} {offset}"
        );
    }
}

/// What the compiled library finds on its grid.
fn on_grid(map: &[f32; 256], x: f32) -> u8 {
    const LAST: f32 = 65_535.0;
    let place = ((x.clamp(-1.0, 1.0) + 1.0) * 0.5).mul_add(LAST, 0.5) as u16;
    let x = -1.0 + 2.0 * f32::from(place) / LAST;
    let below = map
        .windows(2)
        .filter(|pair| f32::midpoint(pair[0], pair[1]) < x);
    below.count() as u8
}

#[test]
fn the_compiled_library_only_differs_by_its_grid() {
    let fixture = Fixture::open("quant/double.safetensors");
    let map = dynamic_map();
    let mut different = 0;
    for case in fixture.cases("absmax") {
        let scales = fixture.f32s(&format!("{case}.absmax"));
        let offset = fixture.f32s(&format!("{case}.offset"))[0];
        let nested = Nested::with_offset(&scales, offset);
        let library = fixture.bytes(&format!("{case}.by_library"));
        for (i, (&code, &scale)) in library.iter().zip(&scales).enumerate() {
            let absmax = nested.absmax()[i / 256];
            let expected = if absmax == 0.0 {
                0
            } else {
                on_grid(&map, (scale - offset) * (1.0 / absmax))
            };
            assert_eq!(code, expected, "{case} {i}");
            different += usize::from(code != nested.codes()[i]);
        }
    }
    assert!(different > 0, "then there is no need to tell them apart");
}

#[test]
fn nested_scales_of_a_file_come_back_as_from_bitsandbytes() {
    let fixture = Fixture::open("quant/double.safetensors");
    for case in fixture.cases("absmax") {
        let nested = Nested::from_parts(
            fixture.bytes(&format!("{case}.by_library")).to_vec(),
            fixture.f32s("map").try_into().unwrap(),
            fixture.f32s(&format!("{case}.nested_absmax")),
            256,
            fixture.f32s(&format!("{case}.offset"))[0],
        );
        let scales = Scales::Nested(nested.unwrap());
        assert_same(
            &scales.to_vec(),
            &fixture.f32s(&format!("{case}.scales")),
            &case,
        );
        if case == "random" {
            let mut weight = Nf4::from_values(
                &fixture.f32s("random.weight"),
                fixture.shape("random.weight"),
                64,
                Round::F32,
            )
            .unwrap();
            weight.scales = scales;
            for (kind, round) in TYPES {
                let expected = fixture.f32s(&format!("random.{kind}"));
                assert_same(&weight.dequantize(round), &expected, kind);
            }
        }
    }
}
