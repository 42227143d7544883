package promauth

import (
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/revocation"
)

// values returns what a function exports, by description.
func values(t *testing.T, c *collector, f func(to sink)) map[*prometheus.Desc]float64 {
	t.Helper()
	metrics := make(chan prometheus.Metric, 100)
	f(metrics)
	close(metrics)
	found := make(map[*prometheus.Desc]float64)
	for metric := range metrics {
		var m dto.Metric
		require.NoError(t, metric.Write(&m))
		found[metric.Desc()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return found
}

// distinct gives each field of a struct a value of its own.
func distinct[T any]() (s T) {
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		n := i + 1001
		switch field := v.Field(i); field.Interface().(type) {
		case uint64:
			field.SetUint(uint64(n))
		case int, int64:
			field.SetInt(int64(n))
		case bool:
			field.SetBool(true)
		case time.Time:
			field.Set(reflect.ValueOf(time.Unix(int64(n), 0)))
		}
	}
	return s
}

func TestEachFigureIsExportedUnderItsName(t *testing.T) {
	t.Parallel()
	c := newCollector(nil, prometheus.Labels{"guard": "default"})
	s := distinct[m2mauth.Stats]()
	assert.Equal(t, map[*prometheus.Desc]float64{
		c.hits: float64(s.Hits), c.misses: float64(s.Misses), c.evicted: float64(s.Evicted),
		c.shared: float64(s.Shared), c.waited: float64(s.Waited), c.refused: float64(s.Refused),
		c.wouldRefuse: float64(s.WouldRefuse), c.waiting: float64(s.Waiting),
		c.tokens: float64(s.Cached), c.bytes: float64(s.CachedBytes), c.reportOnlyUntil: float64(s.ReportOnlyUntil.Unix()),
	}, values(t, c, func(to sink) { c.stats(to, s) }))
	assert.Equal(t, reflect.TypeFor[m2mauth.Stats]().NumField(), 11, "a new field of Stats is exported too")

	list := distinct[revocation.Status]()
	list.Serves = false
	assert.Equal(t, map[*prometheus.Desc]float64{
		c.entries: float64(list.Entries), c.used: float64(list.Used), c.limit: float64(list.MaxEntries),
		c.serves: 0, c.ready: 1, c.contact: float64(list.LastContact.Unix()),
	}, values(t, c, func(to sink) { c.listStatus(to, list) }))

	keys := distinct[m2mauth.KeyStatus]()
	keys.State, keys.Age, keys.LastError = m2mauth.KeysStale, time.Minute, "down"
	keys.Keys = []m2mauth.PublishedKey{{Algorithm: "ES384"}, {}, {}}
	want := map[*prometheus.Desc]float64{
		c.keyState: 1, c.keyAge: 60, c.keySuccess: float64(keys.LastSuccess.Unix()), c.keyServe: float64(keys.ServesUntil.Unix()),
		c.keyCount: 3, c.fetches: float64(keys.Fetches), c.failures: float64(keys.Failures), c.failing: 1, c.coolingDown: 1,
		c.keyWaiting: float64(keys.Waiting),
	}
	assert.Equal(t, want, values(t, c, func(to sink) { c.keys(to, keys) }))
	want[c.coolingDown], want[c.failing], keys.CoolingDown, keys.LastError = 0, 0, false, ""
	assert.Equal(t, want, values(t, c, func(to sink) { c.keys(to, keys) }))
}

// A dashboard would show 0 as a moment in 1970, and keys without an age as new.
func TestATimeThatIsNotThereIsNotExported(t *testing.T) {
	t.Parallel()
	c := newCollector(nil, prometheus.Labels{"guard": "default"})
	found := values(t, c, func(to sink) {
		c.keys(to, m2mauth.KeyStatus{State: m2mauth.KeysFresh})
		c.stats(to, m2mauth.Stats{})
		c.listStatus(to, revocation.Status{})
	})
	require.Contains(t, found, c.keyState)
	for _, d := range []*prometheus.Desc{c.keyAge, c.keySuccess, c.keyServe, c.reportOnlyUntil, c.contact} {
		assert.NotContains(t, found, d)
	}
}
