package meshbench_test

import (
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

func validSpec() meshbench.Spec {
	return meshbench.Spec{
		Entry: meshbench.PortRef{Process: "proxy", Port: "http"},
		Processes: []meshbench.Process{
			{Name: "echo", Role: meshbench.Application, Service: "echo", Runtime: meshbench.Self, Ports: []string{"http"}},
			{
				Name: "proxy", Role: meshbench.ClientProxy, Runtime: "envoy@1.40.0", Ports: []string{"http", "admin"},
				Args:     []string{"--config-path", "{{dir}}/bootstrap.json", `{{host "proxy"}} {{dirof "proxy"}} {{program "envoy@1.40.0"}}`},
				Env:      []string{"UPSTREAM={{address \"echo\" \"http\"}}"},
				Files:    []meshbench.File{{Name: "bootstrap.json", Text: `{"port": {{port "proxy" "admin"}}}`}},
				ReadyURL: `http://{{address "proxy" "admin"}}/ready`,
			},
		},
	}
}

func TestSpecValidate(t *testing.T) {
	if err := validSpec().Validate(); err != nil {
		t.Fatalf("a valid spec was refused: %v", err)
	}
	tests := []struct {
		name  string
		spoil func(*meshbench.Spec)
		want  string
	}{
		{"empty", func(s *meshbench.Spec) { s.Processes = nil }, "no process"},
		{"bad name", func(s *meshbench.Spec) { s.Processes[0].Name = "../x" }, "process name"},
		{"twice the name", func(s *meshbench.Spec) { s.Processes[0].Name = "proxy" }, "two processes"},
		{"bad port name", func(s *meshbench.Spec) { s.Processes[0].Ports = []string{""} }, "port name"},
		{"twice the port", func(s *meshbench.Spec) { s.Processes[1].Ports = []string{"http", "http"} }, "two ports"},
		{"role", func(s *meshbench.Spec) { s.Processes[0].Role = "sidekick" }, "role"},
		{"instance", func(s *meshbench.Spec) { s.Processes[0].Instance = -1 }, "instance"},
		{"no runtime", func(s *meshbench.Spec) { s.Processes[0].Runtime = "" }, "runtime"},
		{"no version", func(s *meshbench.Spec) { s.Processes[1].Runtime = "envoy" }, "runtime"},
		{"empty version", func(s *meshbench.Spec) { s.Processes[1].Runtime = "envoy@" }, "runtime"},
		{"environment", func(s *meshbench.Spec) { s.Processes[1].Env = []string{"PATH"} }, "environment"},
		{"absolute file", func(s *meshbench.Spec) { s.Processes[1].Files[0].Name = "/etc/passwd" }, "file"},
		{"file outside", func(s *meshbench.Spec) { s.Processes[1].Files[0].Name = "../x" }, "file"},
		{"twice the file", func(s *meshbench.Spec) {
			s.Processes[1].Files = append(s.Processes[1].Files, s.Processes[1].Files[0])
		}, "two files"},
		{"template", func(s *meshbench.Spec) { s.Processes[1].Args = []string{"{{"} }, "argument"},
		{"undeclared port", func(s *meshbench.Spec) { s.Processes[1].ReadyURL = `{{port "proxy" "xds"}}` }, "not declared"},
		{"unknown function", func(s *meshbench.Spec) { s.Processes[1].Files[0].Text = `{{secret}}` }, "not defined"},
		{"entry", func(s *meshbench.Spec) { s.Entry.Port = "https" }, "entry"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := validSpec()
			tt.spoil(&s)
			err := s.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error about %q", err, tt.want)
			}
			if code := meshbench.AsError(err).Code; code != meshbench.Invalid {
				t.Errorf("code %s", code)
			}
		})
	}
}
