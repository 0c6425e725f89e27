//! What `bench` prints: a few lines and small tables, or JSON.

use super::measure::Speeds;
use crate::backend::DeviceInfo;
use crate::cli::format::size;
use crate::cli::profile::TokenCost;
use crate::cli::table::Table;
use crate::gpu::LaunchProfile;
use serde_json::{Value, json};

/// All that was found.
pub struct Report {
    pub name: String,
    pub n_adapters: usize,
    pub device: DeviceInfo,
    pub load_seconds: f64,
    /// From the beginning of the load.
    pub first_token_seconds: f64,
    pub weight_bytes: u64,
    /// Of weights, cache and buffers, and those of them on a GPU.
    pub memory_bytes: u64,
    pub gpu_bytes: u64,
    /// Of weights that a decoded token reads.
    pub token_bytes: u64,
    pub n_layers: usize,
    pub speeds: Speeds,
    /// Read and written together; none where two devices share the model.
    pub copy_bytes_per_second: Option<f64>,
    /// Where a GPU has the whole model.
    pub cost: Option<TokenCost>,
}

/// Launches of one kind in a step.
#[derive(Debug, PartialEq)]
struct Kind {
    op: String,
    kernel: String,
    n_launches: usize,
    workgroups: u64,
    weight_bytes: u64,
}

impl Report {
    /// Bytes of weights that decoding reads in a second.
    fn read_bytes_per_second(&self) -> Option<f64> {
        let decode = self.speeds.decode.as_ref()?;
        Some(self.token_bytes as f64 * decode.tokens_per_second)
    }

    /// For people.
    pub fn text(&self) -> String {
        let adapters = match self.n_adapters {
            0 => String::new(),
            1 => " with an adapter".to_owned(),
            n => format!(" with {n} adapters"),
        };
        let on_gpu = match self.gpu_bytes {
            0 => String::new(),
            bytes => format!(", {} of them on the GPU", size(bytes)),
        };
        let mut text = format!(
            "{}{adapters} on {} ({})\nloaded in {:.2} s, first token after {:.2} s: {} of weights; takes {}{on_gpu}\n\n",
            self.name,
            self.device.name,
            self.device.api,
            self.load_seconds,
            self.first_token_seconds,
            size(self.weight_bytes),
            size(self.memory_bytes),
        );
        let mut table = Table::with_header(&["STEP", "TOKENS/S"]);
        for (n, speed) in &self.speeds.prefill {
            table.row([format!("prefill of {n}"), format!("{speed:.1}")]);
        }
        if let Some(decode) = &self.speeds.decode {
            let step = format!("decode of {} after {}", decode.n_tokens, decode.n_before);
            table.row([step, format!("{:.1}", decode.tokens_per_second)]);
        }
        text += &table.render();
        if let Some(read) = self.read_bytes_per_second() {
            let read_gb = read / 1e9;
            text += &format!(
                "\na decoded token reads {} of weights: {read_gb:.1} GB/s",
                size(self.token_bytes)
            );
            if let Some(copy) = self.copy_bytes_per_second {
                let share = 100.0 * read / copy;
                text += &format!(
                    ", {share:.0} % of the {:.1} GB/s that copies read and write",
                    copy / 1e9
                );
            }
            text.push('\n');
        }
        if let Some(cost) = &self.cost {
            text += &self.cost_text(cost);
        }
        text
    }

    fn cost_text(&self, cost: &TokenCost) -> String {
        let in_layers = cost.launches.iter().filter(|l| layer(&l.label).is_some());
        let in_layers = in_layers.count();
        let mut text = format!(
            "it takes {} submits and {} launches, {:.1} in each of {} layers; {} bytes are sent and {} read back\n\n",
            cost.submits,
            cost.launches.len(),
            in_layers as f64 / self.n_layers.max(1) as f64,
            self.n_layers,
            cost.uploaded_bytes,
            cost.read_back_bytes,
        );
        let header = ["OP", "KERNEL", "LAUNCHES", "WORKGROUPS", "WEIGHTS"];
        let mut table = Table::with_header(&header);
        for kind in kinds(&cost.launches) {
            table.row([
                kind.op,
                kind.kernel.clone(),
                kind.n_launches.to_string(),
                kind.workgroups.to_string(),
                size(kind.weight_bytes),
            ]);
        }
        text += &table.render();
        text
    }

    /// For programs. Speeds are in tokens per second.
    pub fn json(&self) -> Value {
        let prefill = self.speeds.prefill.iter();
        let prefill = prefill.map(|(n, speed)| json!({"tokens": n, "tokens_per_second": speed}));
        let decode = self.speeds.decode.as_ref().map(|decode| {
            json!({
                "tokens": decode.n_tokens,
                "after": decode.n_before,
                "tokens_per_second": decode.tokens_per_second,
                "weight_bytes_per_token": self.token_bytes,
                "weight_bytes_per_second": self.read_bytes_per_second(),
            })
        });
        let cost = self.cost.as_ref().map(|cost| {
            let launches = kinds(&cost.launches).into_iter().map(|kind| {
                json!({
                    "op": kind.op, "kernel": kind.kernel, "launches": kind.n_launches,
                    "workgroups": kind.workgroups, "weight_bytes": kind.weight_bytes,
                })
            });
            json!({
                "submits": cost.submits,
                "uploaded_bytes": cost.uploaded_bytes,
                "read_back_bytes": cost.read_back_bytes,
                "launches": cost.launches.len(),
                "by_op": launches.collect::<Vec<_>>(),
            })
        });
        json!({
            "model": self.name,
            "adapters": self.n_adapters,
            "device": self.device.name,
            "api": self.device.api,
            "load_seconds": self.load_seconds,
            "first_token_seconds": self.first_token_seconds,
            "weight_bytes": self.weight_bytes,
            "memory_bytes": self.memory_bytes,
            "gpu_bytes": self.gpu_bytes,
            "layers": self.n_layers,
            "prefill": prefill.collect::<Vec<_>>(),
            "decode": decode,
            "copy_bytes_per_second": self.copy_bytes_per_second,
            "token": cost,
        })
    }
}

/// The beginning of a label that names its layer, such as `blk.3.`
fn layer(label: &str) -> Option<&str> {
    let number = label.strip_prefix("blk.")?;
    let end = number.find('.')?;
    Some(&label[..label.len() - number.len() + end + 1])
}

/// The launches of all layers by what they do, in the order of the step.
fn kinds(launches: &[LaunchProfile]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for launch in launches {
        let op = match layer(&launch.label) {
            Some(layer) => launch.label.replace(layer, ""),
            None => launch.label.clone(),
        };
        let known = kinds
            .iter_mut()
            .find(|kind| kind.op == op && kind.kernel == launch.kernel);
        match known {
            Some(kind) => {
                kind.n_launches += 1;
                kind.workgroups += launch.workgroups;
                kind.weight_bytes += launch.weight_bytes;
            }
            None => kinds.push(Kind {
                op,
                kernel: launch.kernel.clone(),
                n_launches: 1,
                workgroups: launch.workgroups,
                weight_bytes: launch.weight_bytes,
            }),
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::super::measure::Decode;
    use super::*;

    fn launch(label: &str, weight_bytes: u64) -> LaunchProfile {
        LaunchProfile {
            label: label.into(),
            kernel: "matmul_vec".into(),
            workgroups: 4,
            weight_bytes,
        }
    }

    fn report() -> Report {
        Report {
            name: "m:latest".into(),
            n_adapters: 1,
            device: DeviceInfo {
                name: "CPU (avx2)".into(),
                api: "CPU".into(),
                is_gpu: false,
                memory_bytes: None,
            },
            load_seconds: 0.25,
            first_token_seconds: 0.5,
            weight_bytes: 90_000_000,
            memory_bytes: 120_000_000,
            gpu_bytes: 0,
            token_bytes: 80_000_000,
            n_layers: 2,
            speeds: Speeds {
                prefill: vec![(128, 1000.04)],
                decode: Some(Decode {
                    n_before: 256,
                    n_tokens: 64,
                    tokens_per_second: 100.0,
                }),
            },
            copy_bytes_per_second: Some(16e9),
            cost: None,
        }
    }

    #[test]
    fn the_text_has_speeds_and_the_share_of_the_bandwidth() {
        let expected = "m:latest with an adapter on CPU (avx2) (CPU)\n\
            loaded in 0.25 s, first token after 0.50 s: 90 MB of weights; takes 120 MB\n\n\
            STEP                      TOKENS/S \n\
            prefill of 128            1000.0      \n\
            decode of 64 after 256    100.0       \n\n\
            a decoded token reads 80 MB of weights: 8.0 GB/s, 50 % of the 16.0 GB/s that copies read and write\n";
        assert_eq!(report().text(), expected);
        let json = report().json();
        assert_eq!(json["decode"]["weight_bytes_per_second"], json!(8e9));
        assert_eq!(json["token"], Value::Null);
    }

    #[test]
    fn launches_of_all_layers_are_one_line() {
        let launches = [
            launch("embed.embed", 0),
            launch("blk.0.matmul(blk.0.attn_q.weight+blk.0.attn_k.weight)", 5),
            launch(
                "blk.10.matmul(blk.10.attn_q.weight+blk.10.attn_k.weight)",
                6,
            ),
            launch("output.matmul(output.weight)", 7),
        ];
        let kinds = kinds(&launches);
        let shown: Vec<_> = kinds
            .iter()
            .map(|kind| (kind.op.as_str(), kind.n_launches, kind.weight_bytes))
            .collect();
        assert_eq!(
            shown,
            [
                ("embed.embed", 1, 0),
                ("matmul(attn_q.weight+attn_k.weight)", 2, 11),
                ("output.matmul(output.weight)", 1, 7),
            ]
        );
    }
}
