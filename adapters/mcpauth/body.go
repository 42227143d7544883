package mcpauth

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// readMessages reads of a body only what decides about its messages. It refuses what is
// not exactly one JSON value in UTF-8, members that occur twice, wherever they are, and
// members that differ from one that counts only by letter case. A gateway that reads those
// in another way than the SDK would be shown another call than the server.
func readMessages(body []byte) ([]message, error) {
	d := jsontext.NewDecoder(bytes.NewReader(body)) // checks UTF-8, names that occur twice, and surrogates
	if d.PeekKind() != '[' {
		m, err := readMessage(d)
		return []message{m}, errors.Join(err, atEnd(d))
	}
	var batch []message
	_, _ = d.ReadToken()
	for d.PeekKind() != ']' {
		m, err := readMessage(d)
		if err != nil {
			return nil, err
		}
		m.id = ""
		batch = append(batch, m)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	if len(batch) == 0 {
		return nil, errors.New("an empty batch")
	}
	return batch, atEnd(d)
}

func atEnd(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != io.EOF {
		return errors.New("something follows the JSON value")
	}
	return nil
}

func readMessage(d *jsontext.Decoder) (m message, err error) {
	var params jsontext.Value
	method := false
	err = readObject(d, []string{"jsonrpc", "id", "method", "params", "result", "error"}, func(name string) error {
		switch name {
		case "id":
			value, err := d.ReadValue()
			if kind := value.Kind(); kind == '"' || kind == '0' {
				m.id = string(value)
			}
			return err
		case "method":
			method = true
			return readString(d, &m.method)
		case "params":
			value, err := d.ReadValue()
			params = bytes.Clone(value)
			return err
		}
		return d.SkipValue()
	})
	switch {
	case err != nil:
		return message{}, err
	case method && m.method == "":
		return message{}, errors.New("the method is empty")
	}
	switch m.method {
	case callTool, complete, getPrompt, readResource, subscribe, unsubscribe, subscriptionsListen:
		return m, m.readParams(params)
	}
	return m, nil
}

// readParams reads the parameters of a method that reaches for more than the session.
func (m *message) readParams(params jsontext.Value) error {
	d := jsontext.NewDecoder(bytes.NewReader(params))
	return readObject(d, []string{"name", "uri", "ref", "notifications", "arguments", "argument", "_meta"}, func(name string) error {
		switch {
		case name == "name" && (m.method == callTool || m.method == getPrompt):
			return readString(d, &m.name)
		case name == "uri" && (m.method == readResource || m.method == subscribe || m.method == unsubscribe):
			return readString(d, &m.uri)
		case name == "ref" && m.method == complete:
			return readObject(d, []string{"type", "name", "uri"}, func(name string) error {
				switch name {
				case "type":
					return readString(d, &m.ref.kind)
				case "name":
					return readString(d, &m.ref.name)
				case "uri":
					return readString(d, &m.ref.uri)
				}
				return d.SkipValue()
			})
		case name == "notifications" && m.method == subscriptionsListen:
			return readObject(d, []string{"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"}, func(name string) error {
				if name == "resourceSubscriptions" {
					return readStrings(d, &m.uris)
				}
				return d.SkipValue()
			})
		}
		return d.SkipValue()
	})
}

// readObject calls read for each member of an object. read must consume its value.
func readObject(d *jsontext.Decoder, known []string, read func(name string) error) error {
	if d.PeekKind() != '{' {
		return errors.Join(notAn("object"), peekError(d))
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		var name string
		if err := readString(d, &name); err != nil {
			return err
		}
		for _, exact := range known {
			if name != exact && strings.EqualFold(name, exact) {
				return errors.New("a member's name is in another letter case than the protocol's")
			}
		}
		if err := read(name); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func readString(d *jsontext.Decoder, into *string) error {
	if d.PeekKind() != '"' {
		return errors.Join(notAn("string"), peekError(d))
	}
	token, err := d.ReadToken()
	if err == nil {
		*into = token.String()
	}
	return err
}

func readStrings(d *jsontext.Decoder, into *[]string) error {
	if d.PeekKind() != '[' {
		return errors.Join(notAn("array"), peekError(d))
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		var s string
		if err := readString(d, &s); err != nil {
			return err
		}
		*into = append(*into, s)
	}
	_, err := d.ReadToken()
	return err
}

func notAn(what string) error { return errors.New("a value is not the " + what + " that it must be") }

// peekError returns why there is no next token.
func peekError(d *jsontext.Decoder) error {
	if d.PeekKind() != 0 {
		return nil
	}
	_, err := d.ReadToken()
	return err
}
