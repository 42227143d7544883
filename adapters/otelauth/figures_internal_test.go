package otelauth

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/revocation"
)

// values has what was observed, by instrument.
type values struct {
	noop.Observer
	found map[metric.Observable]float64
}

func (v values) ObserveInt64(o metric.Int64Observable, value int64, _ ...metric.ObserveOption) {
	v.found[o] += float64(value)
}

func (v values) ObserveFloat64(o metric.Float64Observable, value float64, _ ...metric.ObserveOption) {
	v.found[o] += value
}

func observed(f func(to metric.Observer)) map[metric.Observable]float64 {
	v := values{found: make(map[metric.Observable]float64)}
	f(v)
	return v.found
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
		}
	}
	return s
}

func TestEachFigureIsExportedUnderItsName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		telemetry := &Telemetry{guardName: guardKey.String("default")}
		i, all, err := newInstruments(sdkmetric.NewMeterProvider().Meter("test"))
		require.NoError(t, err)
		require.NotEmpty(t, all)

		s := distinct[m2mauth.Stats]()
		s.ReportOnlyUntil = time.Now().Add(time.Minute)
		assert.Equal(t, map[metric.Observable]float64{
			i.hits: float64(s.Hits), i.misses: float64(s.Misses), i.evicts: float64(s.Evicted),
			i.shared: float64(s.Shared), i.waited: float64(s.Waited), i.refused: float64(s.Refused),
			i.wouldRefuse: float64(s.WouldRefuse), i.waiting: float64(s.Waiting),
			i.tokens: float64(s.Cached), i.bytes: float64(s.CachedBytes), i.reportOnlyRemaining: 60,
		}, observed(func(to metric.Observer) { telemetry.observeStats(to, i, s) }))
		assert.Equal(t, reflect.TypeFor[m2mauth.Stats]().NumField(), 11, "a new field of Stats is exported too")

		list := distinct[revocation.Status]()
		list.Serves, list.LastContact = false, time.Now().Add(-time.Minute)
		assert.Equal(t, map[metric.Observable]float64{
			i.entries: float64(list.Entries), i.used: float64(list.Used), i.limit: float64(list.MaxEntries),
			i.serves: 0, i.ready: 1, i.listAge: 60,
		}, observed(func(to metric.Observer) { telemetry.observeList(to, i, list) }))

		keys := distinct[m2mauth.KeyStatus]()
		keys.State, keys.Age, keys.LastError = m2mauth.KeysStale, time.Minute, "down"
		keys.LastSuccess, keys.ServesUntil = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
		keys.Keys = []m2mauth.PublishedKey{{Algorithm: "ES384"}, {}, {}}
		want := map[metric.Observable]float64{
			i.keyState: 1, i.keyAge: 60, i.keyRemaining: 3600, i.keyCount: 3, i.fetches: float64(keys.Fetches),
			i.failures: float64(keys.Failures), i.keyFailing: 1, i.keyCooling: 1, i.keyWaiting: float64(keys.Waiting),
		}
		assert.Equal(t, want, observed(func(to metric.Observer) { telemetry.observeKeys(to, i, keys) }))
		want[i.keyCooling], want[i.keyFailing], keys.CoolingDown, keys.LastError = 0, 0, false, ""
		assert.Equal(t, want, observed(func(to metric.Observer) { telemetry.observeKeys(to, i, keys) }))
	})
}

// A dashboard would show keys without an age as new, or as very old.
func TestATimeThatIsNotThereIsNotExported(t *testing.T) {
	t.Parallel()
	telemetry := &Telemetry{guardName: guardKey.String("default")}
	i, _, err := newInstruments(sdkmetric.NewMeterProvider().Meter("test"))
	require.NoError(t, err)
	found := observed(func(to metric.Observer) {
		telemetry.observeKeys(to, i, m2mauth.KeyStatus{State: m2mauth.KeysFresh})
		telemetry.observeStats(to, i, m2mauth.Stats{})
		telemetry.observeList(to, i, revocation.Status{})
	})
	require.Contains(t, found, metric.Observable(i.keyState))
	for _, o := range []metric.Observable{i.keyAge, i.keyRemaining, i.reportOnlyRemaining, i.listAge} {
		assert.NotContains(t, found, o)
	}
}
