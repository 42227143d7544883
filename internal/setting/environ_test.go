package setting

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fields has one of each kind.
type fields struct {
	text     string
	bytes    []byte
	list     []string
	names    map[string][]string
	yes      bool
	number   int
	long     int64
	duration time.Duration
	at       time.Time
	call     func()
}

func (f *fields) variables() []Variable {
	return []Variable{
		{Name: "TEXT", Field: &f.text},
		{Name: "BYTES", Field: &f.bytes},
		{Name: "LIST", Field: &f.list, Narrows: true, Weakens: func() bool { return len(f.list) > 1 }},
		{Name: "NAMES", Field: &f.names},
		{Name: "YES", Field: &f.yes, Weakens: func() bool { return f.yes }},
		{Name: "NUMBER", Field: &f.number},
		{Name: "LONG", Field: &f.long},
		{Name: "DURATION", Field: &f.duration},
		{Name: "AT", Field: &f.at},
		{Name: "CALL", Field: &f.call},
	}
}

func TestEachKindOfFieldIsSet(t *testing.T) {
	t.Parallel()
	var f fields
	weakened, mistakes := FromEnviron(f.variables(), []string{
		"P_TEXT= a,b ", "P_BYTES={}", "P_LIST= a ,\tb , ,", "P_NAMES=a=b c;d=e", "P_YES=true", "P_NUMBER=-7", "P_LONG=1099511627776",
		"P_DURATION=1h30m", "P_AT=2026-12-31T18:00:00Z",
		"OTHER_TEXT=x", "Q_P_TEXT=x", "PTEXT=x", "=C:=C:\\", "P_CALL=", "P_MORE_TEXT=another program's",
	}, "P_", "MORE_")
	assert.Empty(t, mistakes)
	assert.Equal(t, []string{"P_LIST", "P_YES"}, weakened, "in one order always")
	assert.Equal(t, fields{
		text: " a,b ", bytes: []byte("{}"), list: []string{"a", "b"}, names: map[string][]string{"a": {"b", "c"}, "d": {"e"}}, yes: true,
		number: -7, long: 1 << 40, duration: 90 * time.Minute, at: time.Date(2026, 12, 31, 18, 0, 0, 0, time.UTC),
	}, f)
}

func TestMistakesInTheEnvironment(t *testing.T) {
	t.Parallel()
	for entry, words := range map[string]string{
		"LIST": MustBeList, "LIST=": MustBeList, "LIST= , ": MustBeList,
		"NAMES=a": MustBeMap, "YES=1": MustBeBool, "YES=TRUE": MustBeBool, "YES= true": MustBeBool,
		"NUMBER=16KiB": MustBeWhole, "NUMBER=99999999999999999999": MustBeWhole, "NUMBER=0": MustNotBeZero,
		"LONG=1e6": MustBeWhole, "LONG=-0": MustNotBeZero, "LONG=9223372036854775808": MustBeWhole,
		"DURATION=10": MustBeDuration, "DURATION=10 s": MustBeDuration, "DURATION=0s": MustNotBeZero, "AT=7d": MustBeTime,
		"CALL=x": InCodeAlone, "TEXTS=x": Unknown, "TEXTS=": Unknown, "=x": Unknown, "text=x": Unknown, "MORE=x": Unknown, "MORE_TEXT=x": Unknown,
	} {
		var f fields
		weakened, mistakes := FromEnviron(f.variables(), []string{"P_" + entry}, "P_", "")
		name := entry
		for i := range entry {
			if entry[i] == '=' {
				name = entry[:i]
				break
			}
		}
		assert.EqualError(t, errors.Join(mistakes...), "m2mauth: P_"+name+" "+words, entry)
		assert.Empty(t, weakened)
	}
	var f fields
	for _, v := range f.variables() {
		if !v.Narrows {
			weakened, mistakes := FromEnviron(f.variables(), []string{"P_" + v.Name + "="}, "P_", "")
			assert.Empty(t, mistakes, "%s is as if it were not set", v.Name)
			assert.Empty(t, weakened)
			assert.Equal(t, fields{}, f)
		}
	}
}

func TestMistakesComeInTheOrderOfTheNames(t *testing.T) {
	t.Parallel()
	var f fields
	weakened, mistakes := FromEnviron(f.variables(), []string{"P_Z=hunter2", "P_YES=true", "P_LONG=hunter2", "P_AT=hunter2", "P_LIST=a"}, "P_", "")
	require.Len(t, mistakes, 3)
	assert.EqualError(t, errors.Join(mistakes...), "m2mauth: P_AT "+MustBeTime+"\nm2mauth: P_LONG "+MustBeWhole+"\nm2mauth: P_Z "+Unknown)
	assert.Equal(t, []string{"P_YES"}, weakened, "a list of one does not weaken")
}

func TestParsedTexts(t *testing.T) {
	t.Parallel()
	const (
		named = "must be written as name=value value;name=value, with each name once, and a value for each"
		date  = "must be a time as RFC 3339 writes it, such as 2026-12-31T18:00:00Z"
	)
	for text, want := range map[string]map[string][]string{
		"a=b c;d=e": {"a": {"b", "c"}, "d": {"e"}},
		" write:products = read:products  list ; ;/repo/owner_id=1;": {"write:products": {"read:products", "list"}, "/repo/owner_id": {"1"}},
		"sub=system:serviceaccount:shop:cart":                        {"sub": {"system:serviceaccount:shop:cart"}},
		"a=b=c":                                                      {"a": {"b=c"}},
	} {
		var got map[string][]string
		assert.Empty(t, Parse(&got, text), "%q", text)
		assert.Equal(t, want, got, "%q", text)
	}
	for _, text := range []string{"", ";", "a", "a=", "=b", "a= ", "a=b;a=c", "a=b;c", "a b=c", "a=b, c=d;e"} {
		var got map[string][]string
		assert.Equal(t, named, Parse(&got, text), "%q", text)
	}
	var at time.Time
	assert.Empty(t, Parse(&at, "2026-12-31T18:00:00+01:00"))
	assert.True(t, at.Equal(time.Date(2026, 12, 31, 17, 0, 0, 0, time.UTC)))
	for _, text := range []string{"", "2026-12-31", "2026-12-31T18:00:00", "2026-12-31 18:00:00Z", "tomorrow"} {
		assert.Equal(t, date, Parse(&at, text), "%q", text)
	}
}

// Kubernetes writes these into every container of a namespace that has Services
// named m2mauth, m2mauth-gateway and m2mauth-demo.
func TestVariablesOfKubernetesServicesAreNoMistakes(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"", "GATEWAY_", "DEMO_", "2_"} {
		for _, name := range []string{
			"SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "SERVICE_PORT_HTTP_ADMIN", "PORT", "PORT_80_TCP", "PORT_80_TCP_PROTO",
			"PORT_80_TCP_PORT", "PORT_80_TCP_ADDR", "PORT_53_UDP", "PORT_53_UDP_ADDR", "PORT_7_SCTP_PROTO",
		} {
			_, mistakes := FromEnviron(nil, []string{"M2MAUTH_" + service + name + "=tcp://10.0.0.11:80"}, "M2MAUTH_", "")
			assert.Empty(t, mistakes)
		}
	}
	_, mistakes := FromEnviron(nil, []string{"SHOP_SERVICE_HOST=10.0.0.11", "SHOP_PORT_80_TCP=tcp://10.0.0.11:80"}, "SHOP_", "")
	assert.Empty(t, mistakes)
	for _, name := range []string{"PORT_", "PORT_80", "PORT_80_TCP_", "PORT_HTTP_TCP", "PORT_80_TCP_HOST", "SERVICE_PORT_", "SERVICE_HOSTS", "XSERVICE_HOST", "_PORTS"} {
		_, mistakes := FromEnviron(nil, []string{"SHOP_" + name + "=x"}, "SHOP_", "")
		assert.Len(t, mistakes, 1, name)
	}
}
