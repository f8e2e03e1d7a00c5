//! Context optimization against PyTorch's autograd over `open_clip`'s text tower.
//! The fixture and its script are in `tests/fixtures/finetune`.

use super::{finetune::Reference, *};

const STEPS: usize = 20;
const BATCH: usize = 8;
const EMBED: usize = 12;
const NAMES: [&str; 4] = ["cat", "dog", "airplane", "long_ears"];
const SGD: Sgd = Sgd {
    rate: 0.1,
    momentum: 0.9,
    weight_decay: 5e-4,
};
/// The largest relative error of a loss, and of a gradient's element against the
/// largest element of any step's gradient. It is wider than fine-tuning's: at this
/// rate the contexts, f32 here and f64 in the fixture, drift apart.
const TOLERANCE: f64 = 5e-4;

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

fn coop(reference: &Reference, case: &str) -> Coop {
    let folder = folder("../finetune/resnet");
    let files = Checkpoint::open(folder.path(), None).unwrap();
    let vectors = match case {
        "words" => Vec::new(),
        _ => floats(&reference.get(&format!("{case}/start"))),
    };
    let start = match case {
        "words" => Start::Text("a photo of a"),
        _ => Start::Vectors(&vectors),
    };
    let names = NAMES.map(str::to_owned);
    Coop::load(&files, &names, start, case == "specific", &Device::flex()).unwrap()
}

/// Images and labels of a step.
fn batch(reference: &Reference, step: usize) -> (Vec<f32>, Vec<usize>) {
    let images = floats(&reference.get("images")[step * BATCH * EMBED..][..BATCH * EMBED]);
    let labels = reference.get("labels")[step * BATCH..][..BATCH].to_vec();
    (images, labels.iter().map(|label| *label as usize).collect())
}

#[test]
fn losses_and_gradients_of_twenty_steps_equal_pytorchs() {
    let reference = Reference::open("../finetune", "coop");
    for (case, length) in [("unified", 16), ("specific", 4), ("words", 4)] {
        let mut coop = coop(&reference, case);
        assert_eq!(coop.length(), length, "{case}");
        let theirs = reference.get(&format!("{case}/losses"));
        let gradients = reference.get(&format!("{case}/gradients"));
        let numbers = gradients.len() / STEPS;
        let largest = (gradients.iter()).fold(0.0_f64, |most, x| most.max(x.abs()));
        let mut losses = Vec::new();
        for (step, theirs) in theirs.iter().enumerate() {
            let (images, labels) = batch(&reference, step);
            let (_, ours) = coop.gradient(&images, &labels).unwrap();
            let ours = rows(ours).unwrap();
            let expected = &gradients[step * numbers..][..numbers];
            assert_eq!(ours.len(), numbers);
            for (ours, theirs) in ours.iter().zip(expected) {
                let off = (f64::from(*ours) - theirs).abs() / largest;
                assert!(
                    off <= TOLERANCE,
                    "{case}: a gradient is off by {off:e} at step {step}"
                );
            }
            let loss = coop.step(&images, &labels, SGD).unwrap().loss;
            let off = (loss / theirs - 1.0).abs();
            assert!(
                off <= TOLERANCE,
                "{case}: a loss is off by {off:e} at step {step}"
            );
            losses.push(loss);
        }
        let texts = floats(&reference.get(&format!("{case}/texts")));
        let ours = coop.embeddings().unwrap();
        assert!(worst_cosine(&ours, &texts, EMBED) > COSINE, "{case}");
        // A context of its own for each class learns most.
        assert!(case != "specific" || theirs[0] > 2.0 * theirs[STEPS - 1]);
        let mistakes = reference.names(&format!("{case}/wrong/"));
        assert_eq!(mistakes.len(), 3);
        for mistake in mistakes {
            let wrong = reference.get(&format!("{case}/wrong/{mistake}"));
            let off = super::finetune::off(&losses, &wrong);
            assert!(
                off > 2.0 * TOLERANCE,
                "{case}: {mistake} differs by {off:e}"
            );
        }
    }
}

#[test]
fn a_restored_context_goes_on_to_the_same_bits() {
    let reference = Reference::open("../finetune", "coop");
    let mut through = coop(&reference, "unified");
    let before = through.state().unwrap();
    assert!(before.momentum.is_empty());
    let steps = |coop: &mut Coop, range: std::ops::Range<usize>| {
        for step in range {
            let (images, labels) = batch(&reference, step);
            coop.step(&images, &labels, SGD).unwrap();
        }
    };
    steps(&mut through, 0..3);
    let parted = through.state().unwrap();
    steps(&mut through, 3..6);
    let mut again = coop(&reference, "unified");
    again.restore(parted).unwrap();
    steps(&mut again, 3..6);
    assert_eq!(again.state().unwrap(), through.state().unwrap());
    again.restore(before).unwrap();
    steps(&mut again, 0..6);
    assert_eq!(again.state().unwrap(), through.state().unwrap());
    let mut other = coop(&reference, "specific");
    other.restore(through.state().unwrap()).unwrap();
    let short = CoopState {
        context: vec![0.0; 3],
        momentum: Vec::new(),
    };
    assert!(other.restore(short).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = folder("../finetune/resnet");
    let files = Checkpoint::open(folder.path(), None).unwrap();
    let refused = |names: &[&str], start: Start<'_>| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let loaded = Coop::load(&files, &names, start, false, &Device::flex());
        format!("{:#}", loaded.err().unwrap())
    };
    let message = refused(&[], Start::Text("a photo of a"));
    assert!(message.contains("no class"), "{message}");
    let message = refused(&["cat"], Start::Vectors(&[0.0; 17]));
    assert!(message.contains("vectors of 16"), "{message}");
    let message = refused(&["cat"], Start::Text(" "));
    assert!(message.contains("an empty text"), "{message}");
    let message = refused(&["cat"], Start::Vectors(&[0.0; 16 * 75]));
    assert!(message.contains("77"), "{message}");
    let mut coop = coop(&Reference::open("../finetune", "coop"), "words");
    for (images, labels) in [(12, vec![4]), (11, vec![0]), (0, vec![])] {
        assert!(coop.step(&vec![0.1; images], &labels, SGD).is_err());
    }
}
