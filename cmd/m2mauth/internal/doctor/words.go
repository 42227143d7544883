package doctor

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

var base64url = base64.RawURLEncoding

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// until says when a moment is, and how far from now.
func until(at, now time.Time) string {
	switch d := at.Sub(now); {
	case d >= time.Second:
		return fmt.Sprintf("in %s (%s)", spell(d), moment(at))
	case d <= -time.Second:
		return fmt.Sprintf("%s ago (%s)", spell(-d), moment(at))
	}
	return "now (" + moment(at) + ")"
}

// spell writes a duration in its two largest units.
func spell(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}}
	var words []string
	for i, u := range units {
		n := d / u.size
		d -= n * u.size
		if n > 0 {
			word := fmt.Sprintf("%d %s", n, u.name)
			if n > 1 {
				word += "s"
			}
			words = append(words, word)
		}
		if len(words) > 0 && i+1 < len(units) && (len(words) == 2 || d < units[i+1].size) {
			break
		}
	}
	if len(words) == 0 {
		return "less than a second"
	}
	return strings.Join(words, " ")
}
