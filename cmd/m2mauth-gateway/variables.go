package main

import (
	"reflect"
	"regexp"
	"strings"
)

// prefix is what the gateway's variables begin with.
const prefix = "M2MAUTH_GATEWAY_"

// passwordVariable holds the password of the revocation store. It goes before
// password_file. It is no field of the file, which people copy, commit and print.
const passwordVariable = prefix + "REVOCATION_REDIS_PASSWORD"

// commandVariables are read by the command line: see commands.
var commandVariables = []string{prefix + "FILE", prefix + "LOG_LEVEL", prefix + "LOG_FORMAT"}

// serviceVariable is what Kubernetes sets in every pod for a Service that is called
// m2mauth-gateway.
var serviceVariable = regexp.MustCompile(`^M2MAUTH_GATEWAY_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// variables returns the single values of the file by their variables: that of http.address
// is M2MAUTH_GATEWAY_HTTP_ADDRESS. Lists, such as issuers and rules, have none.
func variables(t reflect.Type, name string, index []int) map[string][]int {
	found := make(map[string][]int)
	for i := range t.NumField() {
		field := t.Field(i)
		tag := field.Tag.Get("yaml")
		if tag == "" || tag == "end" {
			continue
		}
		inner, at := name+strings.ToUpper(tag), append(append([]int(nil), index...), i)
		inside := field.Type
		if inside.Kind() == reflect.Pointer {
			inside = inside.Elem()
		}
		switch {
		case inside.Kind() == reflect.Struct && inside != timeType:
			for name, index := range variables(inside, inner+"_", at) {
				found[name] = index
			}
		case inside.Kind() != reflect.Slice && inside.Kind() != reflect.Map:
			found[inner] = at
		}
	}
	return found
}

// fromEnviron sets what the environment sets, in place of what the file says. An empty
// variable counts as not set. A variable with the prefix that is no setting is a mistake,
// so that a typo does not drop one.
func (s *settings) fromEnviron(r *reader, environ []string) {
	known := variables(reflect.TypeFor[settings](), prefix, nil)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) || serviceVariable.MatchString(name) || isOneOf(name, commandVariables) {
			continue
		}
		index, is := known[name]
		switch {
		case name == passwordVariable:
			s.redisPassword = value
		case !is:
			r.mistakes = append(r.mistakes, mistake{where: name, text: "there is no such setting"})
		case value != "":
			field, path := s.at(index)
			r.variables[path] = name
			if err := setScalar(field, value); err != nil {
				r.add(path, "%v", err)
			}
		}
	}
}

// at returns a field and its path, and makes what it is part of.
func (s *settings) at(index []int) (v reflect.Value, path string) {
	v = reflect.ValueOf(s).Elem()
	for _, i := range index {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		path += "." + v.Type().Field(i).Tag.Get("yaml")
		v = v.Field(i)
	}
	return v, path[1:]
}

func isOneOf(name string, names []string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}
