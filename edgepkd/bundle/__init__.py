"""The bundle `NAME.edgepkd/`: what the device needs, in one folder that is whole or absent.

    manifest.json        schema_version, labels, inputs, cascade, segments, SHA-256 of every file
    segments/mv_1.onnx   one ONNX file per segment; tensors named x, features, logits
    wise.json            WISE weights per order
    policy.json          temperatures and thresholds per order
    MODEL_CARD.md        data, split, accuracy
    engines/<target>/    engines that were built of the segments for one kind of machine, if any

`reading.read_bundle` and `writing.write_bundle` are the two ways in and out. `manifest` says what
the JSON files may say, `schema` how they are read, `segment` what an ONNX file may hold. `engines`
and the modules named after it are about `engines/`, `folder` and `trust` about whom to believe.
"""
