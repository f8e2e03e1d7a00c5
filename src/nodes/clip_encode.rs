//! `clip_encode`: embeddings of a split's images, or of texts built from a
//! template, classes and attributes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    artifact::{Artifact, Embeddings, LabelUse, Output, Row, Type},
    data::Split,
    models::{
        clip::Tower,
        image::Rgb8,
    },
    node::{Accept, Complaint, Ctx, Done, Inputs, Item, Keep, Kind, Node, Pool, Port},
    nodes::{
        candidate_pool::candidate_pool,
        doubtful::{LongText, doubtful},
        prompt_set::PromptSet,
        template::{OneOrMany, Templates},
    },
};

/// Raised when the numbers of one embedding change.
const ITEM_VERSION: u32 = 2;

/// Parameters of `clip_encode`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipEncode {
    /// Templates of the texts, in minijinja: they see `class`, `class_index`,
    /// `attributes` (chosen, then the candidate), `chosen` and `candidate`.
    /// Several templates make an ensemble.
    #[serde(default)]
    prompts: OneOrMany,
    /// A published set of templates in place of `prompts`: the 18 of CIFAR, the
    /// 7 or the 80 of `ImageNet`.
    #[serde(default)]
    prompt_set: Option<PromptSet>,
    /// What becomes of a text with more tokens than the model takes (77): "cut",
    /// as in `open_clip`, with a warning, or "refuse", as in `OpenAI`'s code.
    #[serde(default)]
    too_long: LongText,
    /// Leave out candidates that the class has already chosen.
    #[serde(default)]
    drop_chosen: bool,
    /// The most candidates of a class, repeats counted: a budget; 0 takes all.
    #[serde(default)]
    first: usize,
}

/// What an image item carries: its position in the split.
struct ImageTask(usize);

/// What a text item carries.
struct TextTask(String);

impl Node for ClipEncode {
    fn output(&self, ports: &BTreeSet<&str>) -> Type {
        if ports.contains("images") {
            Type::ImageEmbeddings
        } else {
            Type::TextEmbeddings
        }
    }

    fn check(&self, ports: &BTreeSet<&str>) -> Vec<Complaint> {
        let complain = |field, message: &str, hint: &str| Complaint {
            field,
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        };
        let mut out = Vec::new();
        let texts = !self.prompts.is_empty() || self.prompt_set.is_some();
        match (ports.contains("images"), texts) {
            (true, true) => out.push(complain(
                Some("prompts"),
                "a node encodes either images or texts",
                "remove `images` or `prompts`, or make two nodes of them",
            )),
            (false, false) => out.push(complain(
                None,
                "there is nothing to encode",
                "give `images` (a split such as \"cifar10.test\"), or `classes` and `prompts` or `prompt_set`",
            )),
            (false, true) if !ports.contains("classes") => out.push(complain(
                Some("prompts"),
                "texts need `classes`",
                "name a data set, a list of names, or a node: classes = \"cifar10\"",
            )),
            _ => {}
        }
        if !self.prompts.is_empty() && self.prompt_set.is_some() {
            out.push(complain(
                Some("prompt_set"),
                "`prompts` and `prompt_set` are two ways to say the same",
                "remove one of them",
            ));
        }
        if ports.contains("images") {
            for port in ["classes", "chosen", "candidates"] {
                if ports.contains(port) {
                    out.push(Complaint {
                        field: Some(port),
                        message: format!("`{port}` has no meaning for images"),
                        hint: Some(format!("remove `{port}`")),
                    });
                }
            }
        }
        if let Err(error) = Templates::new(self.templates()) {
            out.push(Complaint {
                field: Some("prompts"),
                message: format!("{error:#}"),
                hint: None,
            });
        }
        out
    }

    fn reads(&self, port: &str, ports: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        match (port, ports.contains("images")) {
            ("model", true) => Some(&["image"]),
            ("model", false) => Some(&["text"]),
            _ => None,
        }
    }

    fn pool(&self, _: &Inputs) -> Pool {
        Pool::Model
    }

    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        let tower = if inputs.has("images") { "image" } else { "text" };
        let model = inputs.model("model")?;
        let digest = model.part(tower)?;
        Ok(Some(json!({
            "tower": tower,
            "weights": digest,
            "dtype": model.dtype,
            "version": ITEM_VERSION,
        })))
    }

    fn items(&self, inputs: &Inputs, _: &Done) -> Result<Vec<Item>> {
        let mut seen = BTreeSet::new();
        if inputs.has("images") {
            let split = inputs.split("images")?;
            return Ok((0..split.len())
                .map(|i| (i, *split.image_id(i).as_bytes()))
                .filter(|(_, digest)| seen.insert(*digest))
                .map(|(i, digest)| Item::new(digest, ImageTask(i)))
                .collect());
        }
        let mut items = Vec::new();
        for row in self.rows(inputs)?.0 {
            let text = row.text.unwrap_or_default();
            if seen.insert(*crate::digest::Digest::of(text.as_bytes()).as_bytes()) {
                items.push(Item::new(text.as_bytes(), TextTask(text.clone())));
            }
        }
        Ok(items)
    }

    fn batch(&self, asked: Option<usize>) -> usize {
        // Enough for every core to get a batch of its own.
        asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(256, |cores| 256.max(16 * cores.get())))
    }

    fn compute(
        &self,
        inputs: &Inputs,
        batch: &[Item],
        _: &Done,
        keep: &mut Keep<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Result<()> {
        let folder = inputs.model("model")?;
        let rows: Vec<Vec<f32>> = if inputs.has("images") {
            let split = inputs.split("images")?;
            let places: Vec<usize> = batch
                .iter()
                .map(|item| {
                    let ImageTask(i) = item.task().context("an item of another kind")?;
                    Ok(*i)
                })
                .collect::<Result<_>>()?;
            let clip = ctx.models()?.clip(folder, Tower::Image)?;
            let total = places.len() as u64;
            let tell = ctx.progress;
            tell(0, total, "images");
            let fetch = |i: usize| {
                let pixels = split.image(places[i])?;
                Ok(Cow::Owned(Rgb8::new(pixels.width, pixels.height, pixels.rgb)?))
            };
            let rows = clip.encode_fetched(places.len(), &fetch, &|done| tell(done as u64, total, "images"))?;
            // The others are kept; `finish` names those that cannot be read.
            rows.into_iter().map(Result::unwrap_or_default).collect()
        } else {
            let texts: Vec<String> = batch
                .iter()
                .map(|item| {
                    let TextTask(text) = item.task().context("an item of another kind")?;
                    Ok(text.clone())
                })
                .collect::<Result<_>>()?;
            if self.too_long == LongText::Refuse {
                doubtful(inputs, self.too_long, texts.iter().map(String::as_str))?;
            }
            let clip = ctx.models()?.clip(folder, Tower::Text)?;
            let embeddings = clip.encode_texts(&texts)?;
            embeddings.chunks_exact(clip.embed_dim()).map(<[f32]>::to_vec).collect()
        };
        ensure!(
            rows.len() == batch.len(),
            "the model gave {} rows for {} items",
            rows.len(),
            batch.len()
        );
        ensure!(
            rows.iter().flatten().all(|x| x.is_finite()),
            "the model gave a number that is not finite\nhint: check the weights, or use dtype = \"f32\""
        );
        for (place, row) in rows.iter().enumerate() {
            keep(place, row.iter().flat_map(|x| x.to_le_bytes()).collect())?;
        }
        Ok(())
    }

    fn finish(&self, inputs: &Inputs, done: &Done, ctx: &mut Ctx<'_>) -> Result<Output> {
        let values: BTreeMap<&[u8], &[u8]> = done
            .list
            .iter()
            .map(|(item, value)| (item.id.as_slice(), value.as_ref()))
            .collect();
        let mut data = Vec::new();
        let mut dim = 0;
        let mut push = |id: &[u8]| -> Result<()> {
            let value = values.get(id).context("an item was not computed")?;
            dim = value.len() / 4;
            data.extend(value.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            Ok(())
        };
        if inputs.has("images") {
            let split = inputs.split("images")?;
            refuse_unreadable(split, done)?;
            let classes = split.classes().names().to_vec();
            let mut rows = Vec::with_capacity(split.len());
            for (i, label) in split.labels().iter().enumerate() {
                push(split.image_id(i).as_bytes())?;
                rows.push(Row {
                    image: Some(split.image_name(i)),
                    class: classes[*label].clone(),
                    class_index: *label,
                    ..Row::default()
                });
            }
            return Embeddings {
                images: true,
                data,
                dim,
                rows,
                classes,
                labels_of: Some(LabelUse {
                    data: split.labels_digest(),
                    split: split.name().to_owned(),
                    rows: "all".to_owned(),
                }),
            }
            .output();
        }
        let (rows, classes) = self.rows(inputs)?;
        let texts: BTreeSet<&str> = rows.iter().filter_map(|row| row.text.as_deref()).collect();
        doubtful(inputs, self.too_long, texts.into_iter())?.warn(ctx);
        for row in &rows {
            push(row.text.as_deref().unwrap_or_default().as_bytes())?;
        }
        Embeddings {
            images: false,
            data,
            dim,
            rows,
            classes,
            labels_of: None,
        }
        .output()
    }
}

/// How many unreadable images are named.
const NAMED: usize = 20;

/// Names the images that have no value, with the reason of each.
fn refuse_unreadable(split: &Split, done: &Done) -> Result<()> {
    let missing = done.list.iter().filter(|(_, value)| value.is_empty());
    let missing: BTreeSet<&[u8]> = missing.map(|(item, _)| item.id.as_slice()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Images of equal bytes are one item, but each is a file to mend.
    let bad: Vec<usize> = (0..split.len())
        .filter(|i| missing.contains(split.image_id(*i).as_bytes().as_slice()))
        .collect();
    let reason = |i: &usize| match split.image(*i) {
        Err(error) => format!("{error:#}"),
        Ok(_) => format!("`{}` could not be read before", split.image_name(*i)),
    };
    let shown = bad.iter().take(NAMED).map(reason).map(|reason| {
        let reason = reason.split("\nhint:").next().unwrap_or_default();
        format!("\n  {reason}")
    });
    let shown: String = shown.collect();
    let more = match bad.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    bail!(
        "{} of {} images cannot be read:{shown}{more}\nhint: mend them or move them away; the others are encoded and kept",
        bad.len(),
        split.len()
    )
}

impl ClipEncode {
    /// The templates of either source.
    fn templates(&self) -> &[String] {
        match self.prompt_set {
            Some(set) => set.templates(),
            None => self.prompts.list(),
        }
    }

    /// Every text in row order (class, candidate, template), and the classes.
    fn rows(&self, inputs: &Inputs) -> Result<(Vec<Row>, Vec<String>)> {
        let templates = Templates::new(self.templates())?;
        let classes = inputs.classes("classes")?;
        let chosen = inputs.attributes("chosen")?;
        let pool = (inputs.has("candidates"))
            .then(|| candidate_pool(inputs, &classes, self.first))
            .transpose()?;
        let mut rows = Vec::new();
        for (class_index, class) in classes.iter().enumerate() {
            let so_far = chosen.of(class);
            let candidates: Vec<Option<&str>> = match &pool {
                None => vec![None],
                Some(pool) => pool[class_index]
                    .iter()
                    .filter(|c| !(self.drop_chosen && so_far.contains(c)))
                    .map(|c| Some(c.as_str()))
                    .collect(),
            };
            for candidate in candidates {
                let mut attributes = so_far.to_vec();
                attributes.extend(candidate.map(str::to_owned));
                for template in 0..templates.len() {
                    let text = templates.render(
                        template,
                        &json!({
                            "class": class,
                            "class_index": class_index,
                            "attributes": attributes,
                            "chosen": so_far,
                            "candidate": candidate,
                        }),
                    )?;
                    rows.push(Row {
                        text: Some(text),
                        image: None,
                        class: class.clone(),
                        class_index,
                        attributes: attributes.clone(),
                        candidate: candidate.map(str::to_owned),
                        template: (templates.len() > 1).then_some(template),
                    });
                }
            }
        }
        Ok((rows, classes))
    }
}

impl Kind for ClipEncode {
    const NAME: &'static str = "clip_encode";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required("model", &[Accept::Clip], "The CLIP model: an entry of `[models]`, or a `finetune` node."),
        Port::optional("images", &[Accept::Split], "The split to encode, such as `cifar10.test`."),
        Port::optional("classes", &[Accept::Classes], "Classes for which texts are made."),
        Port::optional(
            "chosen",
            &[Accept::Artifact(Type::Attributes)],
            "Attributes chosen so far; they come before the candidate.",
        ),
        Port::optional(
            "candidates",
            &[Accept::Artifact(Type::Answers), Accept::Artifact(Type::Attributes)],
            "Answers, or attributes, that are tried: one text for each class and candidate.",
        ),
    ];
    const SUMMARY: &'static str = "embeds images, or texts made from a template, with CLIP";
    const DOC: &'static str = r#"Embeds the images of a split, or texts made from templates, with a CLIP model.
Each distinct image and each distinct text is computed once, ever: items are kept
in the store by model part, dtype and pixels (or final string), so another class,
candidate or temperature computes only what was not seen before.

Candidates are all attributes of all answers in (answer, key) order; of equal ones in a
class the first stays. `first = 100` keeps the first 100 of each class, repeats counted: a
budget. `drop_chosen` leaves out what the class has chosen already.

Artifact: `embeddings.safetensors` (`embeddings` f32 [n, d], L2-normalised; `labels`
i64 [n] for a split), `items.jsonl` (one line a row), `classes.json`.

Example, images:

    [nodes.images]
    kind = "clip_encode"
    model = "clip"
    images = "cifar10.test"

Example, one text for each class and candidate:

    [nodes.texts]
    kind = "clip_encode"
    model = "clip"
    classes = "cifar10"
    chosen = "previous"
    candidates = "propose"
    prompts = "a photo of a {{ class }} because of {{ attributes | join(' and ') }}"

Example, the standard ensemble of CIFAR (each class becomes the mean of its 18 texts
where the embeddings are used, normalised before and after):

    [nodes.ensemble]
    kind = "clip_encode"
    model = "clip"
    classes = "cifar10"
    prompt_set = "cifar18"      # or "imagenet7", "imagenet80"
"#;
}
