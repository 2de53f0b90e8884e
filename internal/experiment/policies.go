package experiment

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

//go:embed policies.json
var policiesText []byte

// PoliciesSchema returns the JSON Schema (draft 2020-12) of a file of
// policies, in the same way as Schema that of an experiment.
func PoliciesSchema() []byte { return bytes.Clone(policiesText) }

// policiesRule is the rule of a whole document of policies, read once.
var policiesRule = sync.OnceValue(func() *rule {
	r, err := readSchema(policiesText)
	if err != nil {
		panic("meshbench: the embedded schema: " + err.Error()) // a test reads it
	}
	return r
})

var policiesForm = form{"list of policies", "a list of policies", "policies: [{timeout: {request: 1s}}]", policiesRule}

const seePolicies = "meshbench schema policies prints what policies may contain; docs/policies.md explains it"

// ParsePolicies reads the YAML document of policies. The name is that of the
// file, for messages. The error is as that of Parse: every mistake with its
// line, column and nearest word. Whether services exist and a mesh can do what
// is asked, mesh.CheckPolicies tells.
func ParsePolicies(name string, data []byte) ([]meshbench.Policy, error) {
	ms := mistakes{form: &policiesForm}
	v := readYAML(name, data, &ms)
	if v == nil {
		return nil, ms.err(seePolicies)
	}
	checked, _ := checker{&ms}.check(policiesRule(), v, "")
	if err := ms.err(seePolicies); err != nil {
		return nil, err
	}
	text, err := json.Marshal(checked)
	var doc meshbench.Policies
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil {
		// The schema let something through that the type cannot hold.
		return nil, meshbench.Errorf(meshbench.Internal, "checked policies cannot be read: %w", err)
	}
	places := v.places()
	for i, p := range doc.Policies {
		path := fmt.Sprintf("policies[%d]", i)
		if err := mesh.CheckPolicy(p); err != nil {
			said := meshbench.AsError(err)
			text := said.Message
			if said.Hint != "" {
				text += "; " + said.Hint
			}
			ms.add(nearestPlace(places, path), path, "%s", text)
		}
	}
	if err := ms.err(seePolicies); err != nil {
		return nil, err
	}
	return doc.Policies, nil
}
