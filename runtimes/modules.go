// Package runtimes carries the modules that internal/runtimes builds programs
// out of: a folder for each, in which module.mod and module.sum are the go.mod
// and go.sum under other names (docs/decisions/0006-modules-as-files.md says
// why), and Go files, if there are any, are a program of ours.
package runtimes

import "embed"

// Modules holds the folders. What is in them is written out before a build.
//
//go:embed consul etcd istio kubernetes mosn
var Modules embed.FS
