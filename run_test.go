package meshbench_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/meshbench/meshbench"
)

func TestEstimateJSON(t *testing.T) {
	low, high := 1.5, 2.5
	for _, c := range []struct {
		in   meshbench.Estimate
		want string
	}{
		{meshbench.Estimate{Estimate: 2, Low: &low, High: &high, Unit: "us"}, `{"estimate":2,"low":1.5,"high":2.5,"unit":"us"}`},
		{meshbench.Estimate{Estimate: 2}, `{"estimate":2,"low":null,"high":null}`},
		{meshbench.Estimate{Estimate: math.NaN(), Unit: "us"}, `{"estimate":null,"low":null,"high":null,"unit":"us"}`},
	} {
		got, err := json.Marshal(c.in)
		if err != nil || string(got) != c.want {
			t.Errorf("%+v: %s, %v; want %s", c.in, got, err, c.want)
		}
		var back meshbench.Estimate
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != c.want {
			t.Errorf("read back and written: %s, %v", again, err)
		}
	}
}
