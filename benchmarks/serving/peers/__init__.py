"""Other servers, each serving our network up to one exit as the static model they are made for.

`python -m benchmarks.serving.peers` installs, searches and starts them; README.md says what each
can do. `serve_litserve`, `serve_mosec` and `static_model` run in the peers' own environments.
"""
