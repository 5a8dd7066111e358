//! The self-test passes sound weights and fails each kind of damage done to a copy.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::*;

fn check(damage: impl FnOnce(&mut Draft)) -> Result<SelfTest, SelfTestError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.gguf");
    let mut draft = Draft::read(&kimi_tiny("Q8_0"));
    damage(&mut draft);
    draft.write(&path);
    run(&loaded(&path, 2))
}

#[test]
fn passes_sound_weights() {
    for quant in ["Q8_0", "Q4_K_M"] {
        let result = run(&loaded(&kimi_tiny(quant), 2)).unwrap();
        assert!(result.loss < 0.42 * result.chance, "{result:?}");
        assert_eq!(result.answer, "God created the heaven and the earth.");
    }
}

#[test]
fn fails_a_scale_that_is_no_number() {
    let result = check(|draft| {
        // A block of Q8_0 begins with its scale, an f16.
        draft.tensor("blk.2.attn_output.weight").1[..2].copy_from_slice(&[0xff, 0x7f]);
    });
    assert!(
        matches!(result, Err(SelfTestError::NotFinite { .. })),
        "{result:?}"
    );
}

#[test]
fn fails_a_shuffled_embedding() {
    let result = check(|draft| {
        let bytes = &mut draft.tensor("token_embd.weight").1;
        // 4,096 rows; the stride is odd, so that this is a permutation.
        let row = bytes.len() / 4096;
        let rows = bytes.clone();
        for (at, out) in bytes.chunks_exact_mut(row).enumerate() {
            let from = (at * 1_237 + 1) % 4096;
            out.copy_from_slice(&rows[from * row..(from + 1) * row]);
        }
    });
    assert!(
        matches!(result, Err(SelfTestError::Unlikely { .. })),
        "{result:?}"
    );
}

#[test]
fn fails_a_zeroed_router() {
    let result = check(|draft| draft.tensor("blk.3.ffn_gate_inp.weight").1.fill(0));
    let dead = SelfTestError::Router {
        layer: 3,
        chosen: 4,
    };
    assert_eq!(result.unwrap_err().to_string(), dead.to_string());
}

#[test]
fn fails_logits_that_ignore_the_text() {
    // The last norm lets nothing through, so every token is exactly as likely as by chance.
    let result = check(|draft| draft.tensor("output_norm.weight").1.fill(0));
    assert!(
        matches!(result, Err(SelfTestError::Unlikely { .. })),
        "{result:?}"
    );
}

#[test]
fn an_answer_that_runs_on_one_token_is_stuck() {
    assert!(is_stuck(&[7; RUN]));
    assert!(is_stuck(&[[1, 2, 3].as_slice(), &[7; RUN]].concat()));
    assert!(!is_stuck(&[7; RUN - 1]));
    assert!(!is_stuck(&[[7; RUN].as_slice(), &[1]].concat()));
    assert!(!is_stuck(&[]));
}
