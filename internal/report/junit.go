package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"

	"github.com/meshbench/meshbench"
)

// JUnit writes r as a test report: the verdict, each cell's proof of path,
// each comparison and each --fail-on condition is a test case. That a mesh
// costs something fails nothing: only a condition does, and a run that is not
// fit to answer. A comparison that was not decided counts as skipped.
func JUnit(w io.Writer, r meshbench.Result) error {
	suite := junitSuite{Name: r.Experiment.Name, ID: r.ID}
	if !r.StartedAt.IsZero() {
		suite.Timestamp = r.StartedAt.UTC().Format("2006-01-02T15:04:05")
		if r.FinishedAt != nil {
			suite.Time = fmt.Sprintf("%.3f", r.FinishedAt.Sub(r.StartedAt).Seconds())
		}
	}
	suite.add(verdictCase(r))
	for _, c := range r.Cells {
		t := junitCase{Class: "proof of path", Name: c.ID, Output: c.Proof.Reason}
		if c.Proof.Status == meshbench.ProofFailed {
			t.Failure = &junitProblem{Type: "proof_failed", Message: c.Proof.Reason}
		}
		suite.add(t)
	}
	for _, c := range r.Comparisons {
		t := junitCase{Class: c.Cell + " - " + c.BaselineCell, Name: c.Metric, Output: decision(c).text}
		if hasFigure(c) {
			t.Output = difference(c.Difference).String() + ", " + ratio(c.Ratio).String() + ": " + decision(c).text
		}
		if c.Significance == meshbench.Inconclusive || c.Significance == "" {
			t.Skipped = &junitProblem{Message: decision(c).text}
		}
		suite.add(t)
	}
	for _, f := range r.FailOn {
		t := junitCase{Class: "fail-on", Name: f.Condition + " " + f.Cell, Output: f.Message}
		if f.Outcome != "passed" {
			t.Failure = &junitProblem{Type: f.Outcome, Message: f.Message}
		}
		suite.add(t)
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suites: []junitSuite{suite}}); err != nil {
		return meshbench.Errorf(meshbench.Internal, "encode the test report: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func verdictCase(r meshbench.Result) junitCase {
	t := junitCase{Class: "run", Name: "verdict", Output: r.Headline}
	var reasons string
	for _, reason := range r.Verdict.Reasons {
		reasons += reason.Code + ": " + reason.Message + "\n"
	}
	switch {
	case r.Verdict.Status == meshbench.InvalidTest:
		t.Failure = &junitProblem{Type: "invalid", Message: "the run is invalid", Text: reasons}
	case r.State == meshbench.Failed || r.State == meshbench.Interrupted:
		t.Failure = &junitProblem{Type: string(r.State), Message: "the run is " + string(r.State), Text: reasons}
	case reasons != "":
		t.Output += "\n" + string(r.Verdict.Status) + "\n" + reasons
	}
	return t
}

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name      string      `xml:"name,attr"`
	ID        string      `xml:"id,attr,omitempty"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr,omitempty"`
	Timestamp string      `xml:"timestamp,attr,omitempty"`
	Cases     []junitCase `xml:"testcase"`
}

func (s *junitSuite) add(t junitCase) {
	s.Tests++
	if t.Failure != nil {
		s.Failures++
	}
	if t.Skipped != nil {
		s.Skipped++
	}
	s.Cases = append(s.Cases, t)
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Failure *junitProblem `xml:"failure,omitempty"`
	Skipped *junitProblem `xml:"skipped,omitempty"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitProblem struct {
	Type    string `xml:"type,attr,omitempty"`
	Message string `xml:"message,attr,omitempty"`
	Text    string `xml:",chardata"`
}
