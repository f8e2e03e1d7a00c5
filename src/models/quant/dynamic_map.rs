//! The table of 256 numbers that scales are quantised with.
//!
//! Each power of ten from 1 down to 1e-6 has half as many numbers as the one
//! above it, evenly spaced (arXiv 1511.04561): fine near zero in absolute, near
//! one in relative terms.

use std::sync::LazyLock;

/// The table, ascending, from −0.993 to 1.
///
/// These are the bits that PyTorch computes on a processor with fused
/// multiply-add; without, `torch.linspace` rounds 42 of the numbers otherwise.
/// Files bring their own table.
pub fn dynamic_map() -> [f32; 256] {
    // Zero and one are not of the pattern.
    let mut map = [0.0f32; 256];
    map[255] = 1.0;
    let mut at = 1;
    for (power, scale) in [1e-6f32, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
        .into_iter()
        .enumerate()
    {
        let count = 1usize << power;
        for k in 0..count {
            let value = f32::midpoint(boundary(k, count), boundary(k + 1, count)) * scale;
            for value in [value, -value] {
                if let Some(place) = map.get_mut(at) {
                    *place = value;
                }
                at += 1;
            }
        }
    }
    map.sort_by(f32::total_cmp);
    map
}

/// Where the `k`th of `count` equal parts of [0.1, 1] begins, counted from the
/// nearer end as `torch.linspace` does.
fn boundary(k: usize, count: usize) -> f32 {
    let step = (1.0 - 0.1f32) / count as f32;
    if k < count.div_ceil(2) {
        step.mul_add(k as f32, 0.1)
    } else {
        (-step).mul_add((count - k) as f32, 1.0)
    }
}

/// What x must exceed for the next position: the midpoints, those above an odd
/// position one unit lower.
///
/// CUDA's search ends on an even position and looks to both sides from there,
/// so that a tie goes to the even one.
static THRESHOLDS: LazyLock<[f32; 255]> = LazyLock::new(|| {
    let map = dynamic_map();
    std::array::from_fn(|i| {
        let midpoint = match map.get(i..i + 2) {
            Some(&[lower, upper]) => f32::midpoint(lower, upper),
            _ => f32::INFINITY,
        };
        if i % 2 == 1 {
            midpoint.next_down()
        } else {
            midpoint
        }
    })
});

/// The position of the number that is nearest to `x` in [−1, 1].
pub(super) fn nearest(x: f32) -> u8 {
    THRESHOLDS.partition_point(|&threshold| x > threshold) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ascending_with_one_zero() {
        let map = dynamic_map();
        assert!(map.is_sorted_by(|a, b| a < b));
        let bits = |i: usize| map[i].to_bits();
        assert_eq!((bits(127), bits(255)), (0, 1f32.to_bits()));
        assert_eq!(bits(0), (-map[254]).to_bits());
    }

    #[test]
    fn every_number_of_the_table_is_nearest_to_itself() {
        for (i, &x) in dynamic_map().iter().enumerate() {
            assert_eq!(usize::from(nearest(x)), i);
        }
    }

    #[test]
    fn ties_go_to_the_even_position() {
        let map = dynamic_map();
        for i in 0..255 {
            let midpoint = f32::midpoint(map[i], map[i + 1]);
            let even = i + i % 2;
            assert_eq!(usize::from(nearest(midpoint)), even);
            assert_eq!(usize::from(nearest(midpoint.next_up())), i + 1);
            assert_eq!(usize::from(nearest(midpoint.next_down())), i);
        }
    }

    /// The search as CUDA's kernel does it, step by step.
    fn searched(map: &[f32; 256], x: f32) -> usize {
        let (mut pivot, mut above, mut below) = (127usize, 255usize, 0usize);
        for step in [64, 32, 16, 8, 4, 2, 1] {
            if x > map[pivot] {
                below = pivot;
                pivot += step;
            } else {
                above = pivot;
                pivot -= step;
            }
        }
        if x > map[pivot] {
            let midpoint = f32::midpoint(map[above], map[pivot]);
            if x > midpoint { above } else { pivot }
        } else {
            let midpoint = f32::midpoint(map[below], map[pivot]);
            if x < midpoint { below } else { pivot }
        }
    }

    #[test]
    fn the_thresholds_find_what_the_search_finds() {
        let map = dynamic_map();
        let mut tried: Vec<f32> = map.to_vec();
        tried.extend(map.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])));
        tried.extend((0..=20_000).map(|i| (i as f32 - 10_000.0) / 10_000.0));
        for x in tried
            .iter()
            .flat_map(|x| [x.next_down(), *x, x.next_up()])
            .collect::<Vec<_>>()
        {
            assert_eq!(usize::from(nearest(x)), searched(&map, x), "{x:e}");
        }
    }
}
