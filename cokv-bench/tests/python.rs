//! What `docs/python.md` shows is run, word for word, by the Python that `COKV_PYTHON` names, else `python3`.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cokv_bench::scores::{ModelStamp, ScoreFile};
use cokv_core::{AllocationRequest, ConfigTable, Protected, TokenScores};
use common::{METHODS, PASSKEY, cokv, stderr, stdout};
use serde_json::{Value as Json, json};

fn python(folder: &Path, script: &str) -> Output {
    let python = std::env::var_os("COKV_PYTHON").unwrap_or_else(|| "python3".into());
    Command::new(python).args(["-c", script]).current_dir(folder).output().unwrap()
}

/// Whether these modules are there; else the test is skipped.
#[track_caller]
fn can(check: &str, needed: &str) -> bool {
    let python = std::env::var_os("COKV_PYTHON").unwrap_or_else(|| "python3".into());
    let can = Command::new(python).args(["-c", check]).output().is_ok_and(|output| output.status.success());
    if !can {
        cokv_golden::skip(&format!("python3 lacks {needed}; COKV_PYTHON names another one"));
    }
    can
}

/// The Python of the page that holds this, as it stands there.
fn shown(part: &str) -> &'static str {
    let mut blocks = include_str!("../../docs/python.md").split("```python\n").skip(1);
    blocks.find_map(|block| block.split("```").next().filter(|code| code.contains(part))).unwrap()
}

#[test]
fn a_run_opens_in_pandas_by_one_line() {
    if !can("import pandas", "pandas") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = format!("budgets = [32, '50%']\n[model]\nsource = 'random:tiny'\n[data]\n{PASSKEY}\n{METHODS}");
    fs::write(path.join("mine.toml"), text).unwrap();
    stdout(&cokv(path, &["bench", "--quiet", "--config", "mine.toml"]));
    let script = format!(
        "{}\ncells = {}\nprint(len(rows), cells.shape, sorted(cells.index), rows.kept_share.max())",
        shown("read_json"),
        shown("pivot_table").trim()
    );
    let said = stdout(&python(path, &script));
    // Two records of the full cache, and at two budgets.
    assert_eq!(said.trim(), "6 (2, 3) ['full', 'snapkv'] 1.0");
}

/// What the press of the page keeps, and what cokv's allocator says.
#[test]
#[ignore = "needs kvpress 0.5.5: cargo xtask test --full"]
fn head_scores_go_to_kvpress_and_back() {
    let version = "from importlib.metadata import version; import kvpress; assert version('kvpress') == '0.5.5'";
    if !can(version, "kvpress 0.5.5") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let model =
        ModelStamp { name: "toy".into(), fingerprint: None, layers: 3, query_heads: 4, kv_heads: 2, head_dim: 16 };
    let worth = [0.3, -0.1, 1.7, 0.02, 0.4, 0.9];
    ScoreFile::new(model.clone(), "scpr", &worth).write(&path.join("toy.scores.json")).unwrap();
    let exported = cokv(path, &["scores", "export", "--to", "kvpress", "toy.scores.json", "--out", "heads.json"]);
    assert!(exported.status.success(), "{}", stderr(&exported));

    let script = format!(
        "{}
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(1)
model = LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=100, eos_token_id=None)).eval()
prompt = torch.randint(0, 100, (1, 200))
layers = [layer.self_attn for layer in model.model.layers]
with torch.no_grad(), press(model):
    model(prompt)
    kept = [[200 - int((layer.masked_key_indices[1] == head).sum()) for head in range(2)] for layer in layers]
    ends = [int(layer.masked_key_indices[2].max()) for layer in layers]
    said = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=False)
print(json.dumps({{'kept': kept, 'last': max(ends), 'said': said.shape[1]}}))",
        shown("class HeadScoresPress")
    );
    let said: Json = serde_json::from_str(stdout(&python(path, &script)).trim()).unwrap();

    let layout = model.layout().unwrap();
    let mut table = ConfigTable::parse("test", "allocator = 'proportional'").unwrap();
    let allocator = cokv_policies::registry().allocator(&table.take_choice("allocator").unwrap().unwrap()).unwrap();
    let request = AllocationRequest {
        layout,
        prompt_len: 200,
        total: 50 * layout.heads(),
        protected: Protected { sinks: 0, window: 16 },
        token_scores: &TokenScores::with_capacity(layout, 200),
        head_scores: Some(&ScoreFile::read(&path.join("toy.scores.json")).unwrap().head_scores(&model).unwrap()),
    };
    let plan = allocator.allocate(&request).unwrap();
    let kept: Vec<&[usize]> = plan.kept().chunks(layout.kv_heads).collect();
    assert_eq!(said["kept"], json!(kept));
    assert!(said["last"].as_u64().unwrap() < 200 - 16, "the window is kept");
    assert_eq!(said["said"], 205);

    let back =
        ["scores", "import", "--from", "kvpress", "heads.json", "--shape", "3x4x2x16", "--out", "back.scores.json"];
    stdout(&cokv(path, &back));
    assert_eq!(ScoreFile::read(&path.join("back.scores.json")).unwrap().flat(), worth);
}
