//! Finds every tensor of the architecture by name and shape. It must not know arithmetic.

use std::sync::{Arc, atomic::AtomicBool};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Ffn, Layer, Model};
use crate::{
    Error, Progress,
    attention::{Attention, Query},
    config::{Config, Experts},
    moe::{Dense, Moe},
    rope::Rope,
    weights::{Matrix, Stack, Weights},
};

impl Model {
    /// Takes the tensors out of `weights`.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape, or of a type without kernels.
    pub(crate) fn new(
        config: Config,
        weights: &Weights,
        vocab: usize,
        threads: usize,
        progress: Arc<Progress>,
    ) -> Result<Self, Error> {
        let Config {
            hidden, rope_dim, ..
        } = config;
        let embedding = weights.matrix("token_embd.weight", hidden, vocab)?;
        // Small models may use the embedding both ways.
        let output = if weights.has("output.weight") {
            weights.matrix("output.weight", hidden, vocab)?
        } else {
            embedding.clone()
        };
        let layers = (0..config.layers)
            .map(|layer| {
                // Legacy files have their keys read and turned over here.
                progress.touch();
                Names {
                    weights,
                    layer,
                    config: &config,
                }
                .layer()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embedding,
            layers,
            output_norm: weights.vector("output_norm.weight", hidden)?,
            output,
            rope: Rope::new(&config.rope, rope_dim),
            threads: pool(threads)?,
            progress,
            config,
        })
    }
}

fn pool(threads: usize) -> Result<ThreadPool, Error> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("engine-{index}"))
        .build()
        .map_err(|error| Error::Resources(format!("{threads} worker threads: {error}")))
}

/// The tensors of one layer, by their short names.
struct Names<'m> {
    weights: &'m Weights,
    layer: usize,
    config: &'m Config,
}

impl Names<'_> {
    fn name(&self, short: &str) -> String {
        format!("blk.{}.{short}", self.layer)
    }

    fn matrix(&self, short: &str, cols: usize, rows: usize) -> Result<Matrix, Error> {
        self.weights.matrix(&self.name(short), cols, rows)
    }

    fn stack(&self, short: &str, cols: usize, rows: usize, count: usize) -> Result<Stack, Error> {
        let all = self.weights.joined(&self.name(short), cols, rows, count)?;
        Ok(all.into_stack(0, rows, rows))
    }

    fn vector(&self, short: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.weights.vector(&self.name(short), len)
    }

    fn layer(&self) -> Result<Layer, Error> {
        let hidden = self.config.hidden;
        let ffn = match &self.config.experts {
            Some(experts) if self.layer >= self.config.dense_layers => {
                Ffn::Experts(Box::new(self.experts(experts)?))
            }
            _ => Ffn::Dense(self.dense("", self.config.dense_ff)?),
        };
        Ok(Layer {
            attention_norm: self.vector("attn_norm.weight", hidden)?,
            attention: self.attention()?,
            ffn_norm: self.vector("ffn_norm.weight", hidden)?,
            ffn,
        })
    }

    fn attention(&self) -> Result<Attention, Error> {
        let Config {
            hidden,
            heads,
            nope,
            rope_dim,
            v_head,
            kv_lora,
            ..
        } = *self.config;
        let query_rows = heads * (nope + rope_dim);
        let query = match self.config.q_lora {
            None => Query::Direct(self.matrix("attn_q.weight", hidden, query_rows)?),
            Some(rank) => Query::Compressed {
                a: self.matrix("attn_q_a.weight", hidden, rank)?,
                norm: self.vector("attn_q_a_norm.weight", rank)?,
                b: self.matrix("attn_q_b.weight", rank, query_rows)?,
            },
        };
        let (k_b, v_b) = if self.weights.has(&self.name("attn_kv_b.weight"))
            && !self.weights.has(&self.name("attn_k_b.weight"))
        {
            self.split_kv_b()?
        } else {
            (
                self.stack("attn_k_b.weight", nope, kv_lora, heads)?,
                self.stack("attn_v_b.weight", kv_lora, v_head, heads)?,
            )
        };
        Ok(Attention {
            query,
            kv_a: self.matrix("attn_kv_a_mqa.weight", hidden, self.config.kv_row())?,
            kv_a_norm: self.vector("attn_kv_a_norm.weight", kv_lora)?,
            k_b,
            v_b,
            output: self.matrix("attn_output.weight", heads * v_head, hidden)?,
        })
    }

    /// Legacy files keep k_b (transposed) and v_b together, per head nope rows and v_head rows of
    /// kv_lora. Values stay where they are; keys are turned over, as floats: nope × kv_lora × heads
    /// × 4 bytes per layer, 17 MB in Kimi-K2.
    fn split_kv_b(&self) -> Result<(Stack, Stack), Error> {
        let Config {
            heads,
            nope,
            v_head,
            kv_lora,
            ..
        } = *self.config;
        let name = self.name("attn_kv_b.weight");
        let per_head = nope + v_head;
        let both = self.weights.matrix(&name, kv_lora, heads * per_head)?;
        let keys = both.clone().into_stack(0, nope, per_head);
        let values = both.into_stack(nope, v_head, per_head);

        // [head][kv_lora][nope] from [head][nope][kv_lora].
        let mut turned = vec![0.0; heads * kv_lora * nope];
        let mut row = vec![0.0; kv_lora];
        for (head, turned) in turned.chunks_exact_mut(kv_lora * nope).enumerate() {
            for at in 0..nope {
                keys.view(head).decode_row(at, &mut row);
                for (value, turned) in row.iter().zip(turned.chunks_exact_mut(nope)) {
                    turned[at] = *value;
                }
            }
        }
        let keys = Matrix::from_floats(&turned, nope)?;
        Ok((keys.into_stack(0, kv_lora, kv_lora), values))
    }

    /// `infix` is empty for a dense layer, `_shexp` for shared experts.
    fn dense(&self, infix: &str, ff: usize) -> Result<Dense, Error> {
        let hidden = self.config.hidden;
        Ok(Dense {
            gate: self.matrix(&format!("ffn_gate{infix}.weight"), hidden, ff)?,
            up: self.matrix(&format!("ffn_up{infix}.weight"), hidden, ff)?,
            down: self.matrix(&format!("ffn_down{infix}.weight"), ff, hidden)?,
        })
    }

    fn experts(&self, experts: &Experts) -> Result<Moe, Error> {
        let hidden = self.config.hidden;
        let Experts {
            count, ff, shared, ..
        } = *experts;
        let fused = self.name("ffn_gate_up_exps.weight");
        let (gate, up) = if self.weights.has(&fused) {
            let both = self.weights.joined(&fused, hidden, 2 * ff, count)?;
            (
                both.clone().into_stack(0, ff, 2 * ff),
                both.into_stack(ff, ff, 2 * ff),
            )
        } else {
            (
                self.each_expert("ffn_gate", hidden, ff, count)?,
                self.each_expert("ffn_up", hidden, ff, count)?,
            )
        };
        let bias = "exp_probs_b.bias";
        Ok(Moe {
            config: experts.clone(),
            router: self.matrix("ffn_gate_inp.weight", hidden, count)?,
            bias: if self.weights.has(&self.name(bias)) {
                self.vector(bias, count)?
            } else {
                vec![0.0; count]
            },
            gate,
            up,
            down: self.each_expert("ffn_down", ff, hidden, count)?,
            shared: if shared > 0 {
                Some(self.dense("_shexp", shared * ff)?)
            } else {
                None
            },
            on_demand: false,
            met: (0..count).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// One matrix of each expert: all in a tensor, or a tensor for each expert.
    fn each_expert(
        &self,
        matrix: &str,
        cols: usize,
        rows: usize,
        count: usize,
    ) -> Result<Stack, Error> {
        let own = |expert: usize| format!("{matrix}.{expert}.weight");
        if !self.weights.has(&self.name(&own(0))) {
            return self.stack(&format!("{matrix}_exps.weight"), cols, rows, count);
        }
        let matrices: Result<Vec<Matrix>, Error> = (0..count)
            .map(|expert| self.matrix(&own(expert), cols, rows))
            .collect();
        Ok(Stack::Apart(matrices?.into()))
    }
}
