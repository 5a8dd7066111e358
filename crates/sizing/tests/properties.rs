//! Properties of every plan: no input panics or overflows, and asking for more never needs less.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use sizing::facts::{Class, ClassRow, ExpertSize};
use sizing::{
    Ask, Facts, Fits, Hardware, Hyper, Input, Model, Objective, Plan, Quant, Source, choose, plan,
};

fn any_hardware() -> impl Strategy<Value = &'static Hardware> {
    (0..Hardware::all().len()).prop_map(|i| &Hardware::all()[i])
}

prop_compose! {
    fn any_hyper()(
        v in any::<(u32, u32, u32, u32, u32)>(),
        w in any::<(u32, u32, u32, u32, u32)>(),
    ) -> Hyper {
        Hyper {
            layers: v.0, dense_layers: v.1, hidden: v.2, heads: v.3, kv_lora_rank: v.4,
            rope_dim: w.0, experts: w.1, experts_used: w.2, shared_experts: w.3, vocab: w.4,
        }
    }
}

prop_compose! {
    /// Facts that no check has seen: any number in every field.
    fn any_facts()(
        hyper in any_hyper(),
        bytes in any::<u64>(),
        context_length in any::<u64>(),
        rows in prop::collection::vec(any::<(u8, u64)>(), 0..6),
        sizes in prop::collection::vec(any::<(u64, u64)>(), 0..6),
    ) -> Facts {
        let class = |n: u8| [Class::Expert, Class::Attention, Class::Embedding, Class::Other][usize::from(n % 4)];
        Facts {
            hyper,
            bytes,
            context_length,
            classes: rows.into_iter().map(|(n, bytes)| ClassRow { class: class(n), dtype: "Q4_K".into(), count: 1, bytes }).collect(),
            expert_sizes: sizes.into_iter().map(|(bytes, count)| ExpertSize { bytes, count }).collect(),
            ..support::iq3_xxs_facts()
        }
    }
}

fn with(
    source: Source<'_>,
    hardware: &'static Hardware,
    n: (Option<u64>, Option<u64>, Option<u64>, u64, bool),
) -> Plan {
    plan(&Input {
        source,
        hardware,
        context: n.0,
        memory: n.1,
        headroom: n.2,
        bandwidth_bits: n.3,
        cpu_fallback: n.4,
        cache_type: sizing::CacheType::default(),
    })
}

fn rank(fits: Fits) -> u8 {
    match fits {
        Fits::No => 0,
        Fits::Tight => 1,
        Fits::Yes => 2,
    }
}

proptest! {
    #[test]
    fn no_facts_panic(facts in any_facts(), hardware in any_hardware(), n in any::<(Option<u64>, Option<u64>, Option<u64>, u64, bool)>()) {
        let plan = with(Source::Exact(&facts), hardware, n);
        prop_assert!(plan.ram_min_bytes <= plan.ram_bytes);
        prop_assert!(!plan.reason.is_empty());
        let _ = sizing::InspectReport::Facts(Box::new(facts)).to_json();
    }

    #[test]
    fn no_catalogue_input_panics(
        m in 0..Model::all().len(), q in 0..Quant::all().len(), hardware in any_hardware(),
        n in any::<(Option<u64>, Option<u64>, Option<u64>, u64, bool)>(), o in 0..6usize,
    ) {
        let model = &Model::all()[m];
        let plan = with(Source::Catalogue { model, quant: &Quant::all()[q] }, hardware, n);
        prop_assert!(plan.ram_min_bytes <= plan.ram_bytes);
        let ask = Ask { objective: Objective::ALL[o], model, hardware, context: n.0, memory: n.1, cpu_fallback: n.4 };
        prop_assert_eq!(choose(&ask).is_ok(), model.in_guide);
    }

    #[test]
    fn a_longer_context_never_needs_less(q in 0..Quant::all().len(), hardware in any_hardware(), a in 0u64..400_000, b in 0u64..400_000, fallback: bool, exact: bool) {
        let facts = support::iq3_xxs_facts();
        let model = Model::by_name("Kimi-K2-Thinking").unwrap();
        let source = if exact { Source::Exact(&facts) } else { Source::Catalogue { model, quant: &Quant::all()[q] } };
        let at = |context| with(source, hardware, (Some(context), None, None, 1, fallback));
        let (short, long) = (at(a.min(b)), at(a.max(b)));
        prop_assert!(short.vram_bytes <= long.vram_bytes);
        prop_assert!(short.gpu_experts >= long.gpu_experts);
        prop_assert!(short.ram_bytes <= long.ram_bytes);
        prop_assert!(short.ram_min_bytes <= long.ram_min_bytes);
        prop_assert!(short.storage_bytes == long.storage_bytes);
        prop_assert!(short.milli_tokens_per_second >= long.milli_tokens_per_second);
        prop_assert!(rank(short.fits) >= rank(long.fits));
    }

    #[test]
    fn more_ram_never_fits_worse(q in 0..Quant::all().len(), hardware in any_hardware(), a in 0u64..1 << 40, b in 0u64..1 << 40, fallback: bool) {
        let model = Model::by_name("Kimi-K2-Instruct").unwrap();
        let at = |memory| with(Source::Catalogue { model, quant: &Quant::all()[q] }, hardware, (None, Some(memory), None, 1, fallback));
        let (less, more) = (at(a.min(b)), at(a.max(b)));
        prop_assert!(rank(less.fits) <= rank(more.fits));
        prop_assert!(less.milli_tokens_per_second <= more.milli_tokens_per_second);
    }
}
