//! Answers that are held to a form, within a batch of others.

use std::sync::Arc;

use super::*;
use crate::models::answer::{Parsed, parse};

fn held(llm: &Llm, count: usize, max_tokens: usize) -> Result<Vec<Request>> {
    let grammar = Arc::new(llm.attributes_grammar(2, 12)?);
    let prompts = expected("mistral")?.prompts;
    let mut requests = sampled(count, &prompts);
    for request in &mut requests {
        request.grammar = Some(Arc::clone(&grammar));
        request.sampling.max_tokens = max_tokens;
    }
    Ok(requests)
}

#[test]
fn every_answer_that_is_held_to_a_form_has_it() -> Result<()> {
    for host in [true, false] {
        let llm = load(&fixture("mistral"), host)?;
        for answer in answer(&llm, &held(&llm, 24, 200)?, 7)? {
            assert!(
                matches!(parse(&answer.text, 2), Parsed::Valid(_)),
                "{}",
                answer.text
            );
            assert_eq!(answer.finish, Finish::Eos);
        }
    }
    Ok(())
}

#[test]
fn held_answers_are_the_same_alone_and_among_free_ones() -> Result<()> {
    let llm = load(&fixture("mistral"), true)?;
    let mut requests = held(&llm, 16, 200)?;
    requests.extend(sampled(16, &expected("mistral")?.prompts));
    let together = answer(&llm, &requests, 32)?;
    for (request, expected) in requests.iter().zip(&together) {
        let alone = answer(&llm, std::slice::from_ref(request), 1)?;
        assert_eq!(&alone[0], expected);
    }
    Ok(())
}

#[test]
fn fewer_steps_are_taken_than_tokens_written() -> Result<()> {
    let llm = load(&fixture("mistral"), true)?;
    let requests = held(&llm, 1, 200)?;
    let (mut steps, mut tokens) = (0, 0);
    let mut on_answer = |_, answer: Generation| {
        tokens = answer.token_ids.len();
        Ok(())
    };
    llm.generate(
        &requests,
        &Limits::default(),
        &mut on_answer,
        &mut |_| steps += 1,
        &|| false,
    )?;
    assert!(steps + 10 < tokens, "{steps} steps for {tokens} tokens");
    Ok(())
}

#[test]
fn an_answer_cut_within_its_form_says_so() -> Result<()> {
    let llm = load(&fixture("mistral"), true)?;
    for most in 1..30 {
        for answer in answer(&llm, &held(&llm, 3, most)?, 3)? {
            let whole = matches!(parse(&answer.text, 2), Parsed::Valid(_));
            assert_eq!(
                answer.finish == Finish::Eos,
                whole,
                "{most}: {}",
                answer.text
            );
            assert!(answer.token_ids.len() <= most);
        }
    }
    Ok(())
}
