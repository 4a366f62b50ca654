"""VisualTokens → MemoryRecord → Evidence: a durable store on disk with a FAISS index.

store · reading · writer     the memory as a program uses it
retrieve · spans             from what is sought to evidence
bulk                         finished shards of workers
maintain · forget · backup · rebuild · audit · export · survey
                             what people do with a memory, one file each
disk/                        a record's bytes, shards, the folder
catalog/                     which records exist: all SQL
index/                       which keys are indexed, how the nearest are found
age/                         how old records become coarse
"""
