package m2mauth

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
)

func TestNumericDate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		data string
		want float64 // seconds; -1: refused
	}{
		{`0`, 0},
		{`1`, 1},
		{`1516239022`, 1516239022},
		{`1516239022.5`, 1516239022.5},
		{`1.516239022e9`, 1516239022},
		{`15162390220E-1`, 1516239022},
		{`1e-400`, 0},
		{`253402300799`, 253402300799},
		{`253402300799.5`, 253402300799.5},
		{`253402300800`, -1},
		{`1e12`, -1},
		{`1e400`, -1},
		{`9223372036854775808`, -1},
		{`-1`, -1},
		{`-0`, -1},
		{`-1e-400`, -1},
		{`"1516239022"`, -1},
		{`null`, -1},
		{`true`, -1},
		{`[1516239022]`, -1},
		{`{}`, -1},
	} {
		at, ok := numericDate(jsontext.Value(test.data))
		assert.Equal(t, test.want >= 0, ok, test.data)
		if ok {
			assert.InDelta(t, test.want, float64(at.UnixMilli())/1000, 0.001, test.data)
		}
	}
}
