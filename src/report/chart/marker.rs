//! Twelve shapes that are told apart in black and white.

/// Half the size of a marker in pixels.
pub(super) const RADIUS: f64 = 4.0;

/// Corners of shape `index` in units of [`RADIUS`], of about equal area.
const SHAPES: [&[(f64, f64)]; 12] = [
    // A disc.
    &[
        (1.0, 0.0),
        (0.92, 0.38),
        (0.71, 0.71),
        (0.38, 0.92),
        (0.0, 1.0),
        (-0.38, 0.92),
        (-0.71, 0.71),
        (-0.92, 0.38),
        (-1.0, 0.0),
        (-0.92, -0.38),
        (-0.71, -0.71),
        (-0.38, -0.92),
        (0.0, -1.0),
        (0.38, -0.92),
        (0.71, -0.71),
        (0.92, -0.38),
    ],
    // A square.
    &[(0.9, 0.9), (-0.9, 0.9), (-0.9, -0.9), (0.9, -0.9)],
    // A triangle that stands.
    &[(0.0, -1.25), (1.15, 0.8), (-1.15, 0.8)],
    // A diamond.
    &[(0.0, -1.35), (1.15, 0.0), (0.0, 1.35), (-1.15, 0.0)],
    // A triangle that hangs.
    &[(0.0, 1.25), (1.15, -0.8), (-1.15, -0.8)],
    // A plus.
    &[
        (0.4, 0.4),
        (0.4, 1.3),
        (-0.4, 1.3),
        (-0.4, 0.4),
        (-1.3, 0.4),
        (-1.3, -0.4),
        (-0.4, -0.4),
        (-0.4, -1.3),
        (0.4, -1.3),
        (0.4, -0.4),
        (1.3, -0.4),
        (1.3, 0.4),
    ],
    // A star.
    &[
        (0.0, -1.45),
        (0.38, -0.5),
        (1.38, -0.45),
        (0.6, 0.2),
        (0.85, 1.17),
        (0.0, 0.62),
        (-0.85, 1.17),
        (-0.6, 0.2),
        (-1.38, -0.45),
        (-0.38, -0.5),
    ],
    // A triangle to the right.
    &[(1.25, 0.0), (-0.8, 1.15), (-0.8, -1.15)],
    // A cross.
    &[
        (0.0, 0.57),
        (0.64, 1.2),
        (1.2, 0.64),
        (0.57, 0.0),
        (1.2, -0.64),
        (0.64, -1.2),
        (0.0, -0.57),
        (-0.64, -1.2),
        (-1.2, -0.64),
        (-0.57, 0.0),
        (-1.2, 0.64),
        (-0.64, 1.2),
    ],
    // A triangle to the left.
    &[(-1.25, 0.0), (0.8, 1.15), (0.8, -1.15)],
    // An hourglass.
    &[(1.05, -1.15), (-1.05, -1.15), (1.05, 1.15), (-1.05, 1.15)],
    // A lying bar.
    &[(1.4, 0.55), (-1.4, 0.55), (-1.4, -0.55), (1.4, -0.55)],
];

/// Corners of shape `index` around a centre.
pub(super) fn corners(index: usize, (x, y): (f64, f64)) -> Vec<(f64, f64)> {
    SHAPES[index % SHAPES.len()]
        .iter()
        .map(|(dx, dy)| (x + dx * RADIUS, y + dy * RADIUS))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_shapes_are_alike() {
        for (i, a) in SHAPES.iter().enumerate() {
            assert!(SHAPES[i + 1..].iter().all(|b| a != b));
            let reach = a.iter().flat_map(|(x, y)| [x.abs(), y.abs()]);
            let reach = reach.fold(0.0, f64::max);
            assert!((0.9..=1.5).contains(&reach), "shape {i}: {reach}");
        }
    }
}
