//! The forward pass against reference logits.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use super::*;
use crate::testing::*;

#[test]
fn quick() {
    let Some(dir) = fixtures() else { return };
    for quant in ["Q8_0", "Q4_K_M"] {
        let path = dir.join(format!("kimi-tiny-gguf/Kimi-Tiny-{quant}.gguf"));
        let loaded = loaded(&path, 2);
        for reference in references(&dir) {
            let ids = loaded.tokenizer.encode_with_special(&reference.text);
            assert_eq!(ids, reference.ids, "{}", reference.name);
            let mut cache = loaded.model.new_cache(512, CacheType::F32);
            let logits = loaded.model.forward(&ids, &mut cache, Logits::From(0));
            let vocab = loaded.model.vocab();
            for position in &reference.positions {
                let row = &logits[position.pos * vocab..(position.pos + 1) * vocab];
                let worst = position
                    .top
                    .iter()
                    .map(|(id, logit)| (row[*id as usize] - logit).abs())
                    .fold(0.0, f32::max);
                eprintln!("{quant} {} {} worst {worst}", reference.name, position.pos);
            }
        }
        let text = std::fs::read_to_string(dir.join("heldout.txt")).unwrap();
        let begin = std::time::Instant::now();
        let p = crate::perplexity::measure(&loaded, &text, 192, Some(40));
        eprintln!("{quant} {} {:?}", p.unwrap(), begin.elapsed());
        let mut cache = loaded.model.new_cache(512, CacheType::F16);
        let begin = std::time::Instant::now();
        for id in 0..200 {
            loaded.model.forward(&[id], &mut cache, Logits::Last);
        }
        eprintln!("{quant} decode {:?}/token", begin.elapsed() / 200);
    }
}
