// Package redisserver starts Debian's redis-server for tests, kills it, and lets none
// outlive its test.
package redisserver

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/m2mauth/m2mauth/internal/test/logs"
	"github.com/stretchr/testify/require"
)

// patience bounds how long a server may take until it answers.
const patience = time.Minute

// Server is a redis-server on a port of loopback that stays the same, with data that
// outlives Kill. Every write is on disk before it is acknowledged.
type Server struct {
	Addr string

	t     testing.TB
	dir   string
	args  []string
	stdin io.Closer // closed: the server is killed
	done  chan struct{}

	output logs.Buffer
}

// Start starts a server with more settings, as redis-server takes them as arguments.
// Without redis-server the test is skipped; with E2E=required in the environment, it
// fails.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("E2E") == "required" {
			t.Fatal("not to be skipped (E2E=required), but redis-server is not installed")
		}
		t.Skip("redis-server is not installed")
	}
	port := FreePort(t)
	s := &Server{Addr: address(port), t: t, dir: filepath.Join(t.TempDir(), "data")}
	// The shell kills the server as soon as its stdin ends: the system closes that even
	// if the test is killed.
	s.args = append([]string{"-c", `"$@" & read -r line; kill -9 $!; wait`, "sh", program,
		"--bind", loopback, "--port", strconv.Itoa(port), "--dir", s.dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always"}, settings...)
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("redis-server said:\n%s", s.output.String())
		}
	})
	s.Run()
	return s
}

const loopback = "127.0.0.1"

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// FreePort returns a port that is free, as is that of a cluster's nodes among themselves,
// 10,000 above. Both are below those that the system gives to connections, so that none
// takes them, also while the server is killed.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20_000 + rand.IntN(2_700)
		if isFree(port) && isFree(port+10_000) {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", address(port))
	return err == nil && listener.Close() == nil
}

// Run starts the server again after Kill, and waits until it has read its data. To ask it
// does not tell: a server that wants a password refuses before it says that it is loading.
func (s *Server) Run() {
	s.t.Helper()
	before := len(s.output.String())
	require.NoError(s.t, os.MkdirAll(s.dir, 0o700))
	command := exec.Command("sh", s.args...)
	command.Stdout, command.Stderr = &s.output, &s.output
	stdin, err := command.StdinPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, command.Start())
	s.stdin, s.done = stdin, make(chan struct{})
	go func() {
		defer close(s.done)
		command.Wait()
	}()
	ready := func() bool { return strings.Contains(s.output.String()[before:], "Ready to accept connections") }
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(5 * time.Millisecond) {
		require.True(s.t, time.Now().Before(deadline), "redis-server is not ready")
	}
}

// Kill ends the server by SIGKILL.
func (s *Server) Kill() {
	if s.stdin != nil {
		s.stdin.Close()
		<-s.done
		s.stdin = nil
	}
}

// Empty removes the data of a server that does not run.
func (s *Server) Empty() {
	s.t.Helper()
	require.Nil(s.t, s.stdin, "the server runs")
	require.NoError(s.t, os.RemoveAll(s.dir))
}

// Do sends one command on a connection of its own, after it has logged in as a user, and
// returns the first line of the reply.
func (s *Server) Do(user, password string, command ...string) string {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr, patience)
	require.NoError(s.t, err)
	defer conn.Close()
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(patience)))
	replies := bufio.NewReader(conn)
	var line string
	for _, words := range [][]string{{"AUTH", user, password}, command} {
		_, err = io.WriteString(conn, strings.Join(words, " ")+"\r\n")
		require.NoError(s.t, err)
		line, err = replies.ReadString('\n')
		require.NoError(s.t, err)
	}
	return strings.TrimSpace(line)
}
