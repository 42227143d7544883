package soak

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// outcome is what an answer says, read strictly: status, challenge and body agree.
type outcome string

const (
	accepted     outcome = "accepted"                      // 200 or 201, with the right body
	noToken      outcome = "401 without an error"          // no bearer token
	badRequest   outcome = "400 invalid_request"           // malformed credentials
	invalid      outcome = "401 invalid_token"             //
	lacksScope   outcome = "403 that names the scope"      //
	forbidden    outcome = "403 without a scope"           // limited to an organization
	overShare    outcome = "429"                           // of a source with too many requests
	noPlace      outcome = "503, no place for a check"     // too many new tokens
	noKeys       outcome = "503, keys cannot be had"       // or its key is not known yet: the token may be good
	disconnected outcome = "disconnected, as it should be" // of slow and broken clients
	wrong        outcome = "wrong"                         // none of these
)

// request is one request and what is known of its credentials.
type request struct {
	client        string // kind of client
	method, path  string
	authorization []string // the fields
	story         string   // what is in them
	body          string   // of the answer, if accepted

	want    outcome   // with a known key, in time
	key     *key      // that the token names; nil if none is looked for
	madeUp  bool      // the token names a key that never was
	expires time.Time // when the shop must begin to refuse it, leeway included; zero = not during the run
	checked bool      // may need a signature check
	flood   bool      // part of a flood
}

// moment is what is known when a request begins.
type moment struct {
	at      time.Time
	proven  int64
	healthy time.Time
}

// showsWithin is how long after its publication a key may be unknown to the shop,
// if the issuer is well: the backoff after a fault, which is longer than any pause, a fetch, and
// time for a busy machine.
const showsWithin = 30*time.Second + 5*time.Second + 30*time.Second

// judge knows what is right.
type judge struct {
	t              *testing.T
	issuer         *issuer
	began          time.Time
	manyFlood      spans      // of many sources: the queue for signature checks may be full
	mu             sync.Mutex // guards the fields below
	counts         map[string]map[outcome]int
	wrong, answers int
}

const maxStories = 20

func (j *judge) begin() moment {
	j.issuer.truth.Lock()
	defer j.issuer.truth.Unlock()
	return moment{time.Now(), j.issuer.proven, j.issuer.healthy}
}

// allowed returns the right outcomes of a request that began at m and has been
// answered. It repeats the promises, and shares no code with what keeps them.
func (j *judge) allowed(r request, m moment) []outcome {
	end := time.Now()
	// Read after the answer: the shop had no newer version when it gave it.
	served := j.issuer.served.Load()
	right := []outcome{r.want}
	switch {
	case r.madeUp:
		right = append(right, noKeys) // in a fault, or in the pause between refetches
	case r.key != nil:
		right = j.byKey(r, m, served)
	}
	if !r.expires.IsZero() {
		switch { // by the wall clock, as the shop does
		case !m.at.Round(0).Before(r.expires):
			return []outcome{invalid}
		case !end.Round(0).Before(r.expires):
			right = append(right, invalid)
		}
	}
	if r.checked && j.manyFlood.overlap(m.at, end) {
		right = append(right, noPlace)
	}
	if r.flood {
		right = append(right, noPlace, overShare)
	}
	return right
}

func (j *judge) byKey(r request, m moment, served int64) []outcome {
	until := r.key.until.Load()
	known := r.key.from <= m.proven && served < until
	unknown := served < r.key.from || until <= m.proven
	j.issuer.truth.Lock()
	defer j.issuer.truth.Unlock()
	wellSince := later(r.key.born, m.healthy)
	overdue := !m.healthy.IsZero() && m.healthy.Equal(j.issuer.healthy) && m.at.After(wellSince.Add(showsWithin))
	failing := j.issuer.faultName != "" && !j.issuer.unavailable.IsZero() && m.at.After(j.issuer.unavailable)
	switch {
	case known, overdue && served < until:
		return []outcome{r.want}
	case failing && r.key.from > j.issuer.faultAt:
		return []outcome{noKeys} // 401 would make every client fetch another token
	}
	right := []outcome{noKeys} // a refetch fails, or pauses
	if until <= served {
		right = append(right, invalid)
	}
	if !unknown {
		right = append(right, r.want)
	}
	return right
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// send sends the request and judges the answer.
func (j *judge) send(client *http.Client, url string, r request) outcome {
	h, err := http.NewRequest(r.method, url+r.path, nil)
	if err != nil {
		return j.judged(r, j.begin(), wrong, err.Error())
	}
	if r.authorization != nil {
		h.Header["Authorization"] = r.authorization
	}
	m := j.begin()
	response, err := client.Do(h)
	if err != nil {
		return j.judged(r, m, wrong, "no answer: "+err.Error())
	}
	return j.answered(r, m, response)
}

// answered judges an answer.
func (j *judge) answered(r request, m moment, response *http.Response) outcome {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return j.judged(r, m, wrong, "no whole answer: "+err.Error())
	}
	got, problem := read(r, response, string(body))
	return j.judged(r, m, got, fmt.Sprintf("%d %s\n\tWWW-Authenticate: %q\n\t%s", response.StatusCode, problem, response.Header["Www-Authenticate"], body))
}

// judged counts an outcome, and tells the story of a wrong one.
func (j *judge) judged(r request, m moment, got outcome, answer string) outcome {
	right := []outcome{disconnected}
	if got != disconnected {
		right = j.allowed(r, m)
	}
	if got == noKeys {
		j.issuer.couldNotFetch()
	}
	ok := slices.Contains(right, got)
	if ok && r.key != nil && (got == accepted || got == lacksScope || got == forbidden) {
		j.issuer.accepted(r.key)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.counts[r.client] == nil {
		j.counts[r.client] = make(map[outcome]int)
	}
	j.counts[r.client][got]++
	j.answers++
	if ok {
		return got
	}
	if j.wrong++; j.wrong <= maxStories {
		j.t.Errorf("wrong answer, %.1f s after the beginning, asked for %v\n\t%s: %s %s with %s\n\tright: %q\n\tgot: %q: %s\n\t%s",
			time.Since(j.began).Seconds(), time.Since(m.at).Round(time.Millisecond), r.client, r.method, r.path, r.story, right, got, answer, j.situation(r, m))
	}
	return got
}

func (j *judge) situation(r request, m moment) string {
	j.issuer.truth.Lock()
	defer j.issuer.truth.Unlock()
	s := fmt.Sprintf("the shop had at least version %d of the key set and at most %d; the issuer's fault: %q", m.proven, j.issuer.served.Load(), j.issuer.faultName)
	if r.key != nil {
		s += fmt.Sprintf("; the key %.8s (%s) came with version %d", r.key.id, r.key.alg, r.key.from)
		if until := r.key.until.Load(); until <= j.issuer.served.Load()+1000 {
			s += fmt.Sprintf(" and went with version %d", until)
		}
	}
	return s
}

// scopeOf is what a challenge to one without a token says of the route.
func scopeOf(r request) string {
	switch {
	case r.path == "/whoami":
		return ""
	case r.method == http.MethodPost:
		return `, scope="` + writeScope + `"`
	}
	return `, scope="` + readScope + `"`
}

// read reads an answer. What does not fit together is wrong, and the problem says why.
func read(r request, response *http.Response, body string) (got outcome, problem string) {
	h := response.Header
	challenge := strings.Join(h["Www-Authenticate"], "\n")
	if h.Get("Content-Type") != "application/json" {
		return wrong, "it is not JSON"
	}
	if response.StatusCode < 300 {
		success := http.StatusOK
		if r.method == http.MethodPost {
			success = http.StatusCreated
		}
		switch {
		case response.StatusCode != success, challenge != "":
			return wrong, "status or challenge of a success"
		case body != r.body+"\n":
			return wrong, "another body than " + r.body
		}
		return accepted, ""
	}
	var refusal struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal([]byte(body), &refusal); err != nil || refusal.Description == "" {
		return wrong, "its body is no refusal"
	}
	if h.Get("Cache-Control") != "no-store" {
		return wrong, "it could be cached"
	}
	const realm = `Bearer realm="` + audience + `"`
	var challenged string // the error that the challenge has to name
	switch response.StatusCode {
	case 400:
		got, challenged = badRequest, "invalid_request"
	case 401:
		got, challenged = invalid, "invalid_token"
		if refusal.Error == "unauthorized" {
			if challenge != realm+scopeOf(r) {
				return wrong, "the challenge says more than the realm and the route's scope"
			}
			return noToken, ""
		}
	case 403:
		got, challenged = forbidden, "insufficient_scope"
		if strings.HasSuffix(challenge, `, scope="`+writeScope+`"`) && r.method == http.MethodPost {
			got = lacksScope
		} else if strings.Contains(challenge, "scope=") {
			return wrong, "the challenge names another scope"
		}
	case 429, 503:
		seconds, err := strconv.Atoi(h.Get("Retry-After"))
		switch {
		case err != nil || seconds < 1 || seconds > 31:
			return wrong, "Retry-After is " + h.Get("Retry-After")
		case challenge != "", refusal.Error != "temporarily_unavailable":
			return wrong, "it blames the token"
		case response.StatusCode == 429:
			return overShare, ""
		case strings.HasPrefix(refusal.Description, "too many new tokens"):
			return noPlace, ""
		}
		return noKeys, ""
	default:
		return wrong, "no status that the shop has"
	}
	if refusal.Error != challenged || !strings.HasPrefix(challenge, realm+`, error="`+challenged+`"`) {
		return wrong, "body and challenge do not agree"
	}
	return got, ""
}
