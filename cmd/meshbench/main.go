// Command meshbench measures what a service mesh costs.
package main

import (
	"os"

	"github.com/meshbench/meshbench/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
