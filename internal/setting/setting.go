// Package setting reads settings from environment variables, and says what is wrong with
// the value of a single setting. Its messages contain no value that might be a secret:
// none from the environment, and no URL.
package setting

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// OfKubernetes matches the variables that Kubernetes adds for the Services of a
// namespace
// (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables),
// including those of a Service whose name only begins like the prefix: another team's
// new Service must not keep the API from starting.
var OfKubernetes = regexp.MustCompile(`^([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// Mistakes, worded to follow the name of a variable.
const (
	Unknown        = "is not a setting of m2mauth: docs/environment.md has them all"
	InCodeAlone    = "cannot be set from the environment: set the field of Config in code"
	MustBeList     = "holds nothing: separate its values by commas"
	MustBeMap      = "must be written as name=value value;name=value, with each name once, and a value for each"
	MustBeBool     = "must be true or false"
	MustBeWhole    = "must be a whole number, such as 16384"
	MustBeDuration = "must be a duration with its unit, such as 90s or 1h30m"
	MustNotBeZero  = "must not be zero, which in Config means the default: leave it out for that; LEEWAY, KEY_STALE_FOR and CACHE_BYTES take a negative value for none"
	MustBeTime     = "must be a time as RFC 3339 writes it, such as 2026-12-31T18:00:00Z"
)

// Parse sets what field points to. Otherwise it says what is wrong with the value,
// without quoting it.
func Parse(field any, value string) (mistake string) {
	var err error
	switch field := field.(type) {
	case *string:
		*field = value
	case *[]byte:
		*field = []byte(value)
	case *[]string:
		*field = parts(value, ",")
		if len(*field) == 0 {
			return MustBeList
		}
	case *map[string][]string:
		*field = make(map[string][]string)
		for _, entry := range parts(value, ";") {
			name, values, _ := strings.Cut(entry, "=")
			name = strings.TrimSpace(name)
			_, twice := (*field)[name]
			if (*field)[name] = strings.Fields(values); len(strings.Fields(name)) != 1 || twice || len((*field)[name]) == 0 {
				return MustBeMap
			}
		}
		if len(*field) == 0 {
			return MustBeMap
		}
	case *bool:
		if *field = value == "true"; value != "true" && value != "false" {
			return MustBeBool
		}
	case *int:
		*field, err = strconv.Atoi(value)
		return number(*field == 0, err, MustBeWhole)
	case *int64:
		*field, err = strconv.ParseInt(value, 10, 64)
		return number(*field == 0, err, MustBeWhole)
	case *time.Duration:
		*field, err = time.ParseDuration(value)
		return number(*field == 0, err, MustBeDuration)
	case *time.Time:
		if *field, err = time.Parse(time.RFC3339, value); err != nil {
			return MustBeTime
		}
	default:
		return InCodeAlone
	}
	return ""
}

func number(zero bool, err error, mistake string) string {
	switch {
	case err != nil:
		return mistake
	case zero:
		return MustNotBeZero
	}
	return ""
}

// parts splits a list at separator, trims blanks, and drops empty parts.
func parts(list, separator string) (all []string) {
	for part := range strings.SplitSeq(list, separator) {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}
