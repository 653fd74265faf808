package compose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Stack is one running compose project.
type Stack struct {
	project string
	file    string
	env     []string
	compose []string // the compose command: "docker compose" or "docker-compose"
}

// Tick is one line of a load generator's report, as far as this package reads it: what
// happened in one second.
type Tick struct {
	T            time.Time      `json:"t"`
	Region       string         `json:"region"`
	Requests     int            `json:"requests"`
	Failed       int            `json:"failed"`
	Safe         int            `json:"safe"`        // calls that are safe to repeat, among Requests
	SafeFailed   int            `json:"safe_failed"` // and those of them that failed
	P50          float64        `json:"p50_ms"`
	P99          float64        `json:"p99_ms"`
	Max          float64        `json:"max_ms"`
	PaymentsFrom map[string]int `json:"payments_from"` // region -> calls
	ServedFrom   map[string]int `json:"served_from"`
	Errors       []string       `json:"errors"`
	Final        bool           `json:"final"`
}

// Container is what docker says of one container of the stack.
type Container struct {
	Service string
	Region  string
	ID      string
	Running bool
	Health  string // "healthy", "unhealthy", "starting"; "" without a check
}

// ErrNoEngine means that no docker engine, or no compose, answers on this machine.
var ErrNoEngine = errors.New("no docker engine with compose answers here")

// NewStack returns the project of a compose file, with settings env for its variables. It
// starts nothing. The error is ErrNoEngine where docker or compose is missing.
func NewStack(ctx context.Context, project, file string, env ...string) (*Stack, error) {
	s := &Stack{project: project, file: file, env: append(os.Environ(), env...)}
	if _, err := s.run(ctx, "docker", "info"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoEngine, err)
	}
	for _, c := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if _, err := s.run(ctx, c[0], append(slices.Clone(c[1:]), "version")...); err == nil {
			s.compose = c
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: neither `docker compose` nor docker-compose runs", ErrNoEngine)
}

// Up starts what is not running and returns when everything it starts is healthy, as far
// as the file's depends_on conditions say.
func (s *Stack) Up(ctx context.Context) error {
	_, err := s.composeRun(ctx, "up", "-d", "--no-build")
	return err
}

// Down stops everything and deletes the stack's volumes and networks.
func (s *Stack) Down(ctx context.Context) error {
	_, err := s.composeRun(ctx, "down", "--volumes", "--remove-orphans", "-t", "5")
	return err
}

// Containers lists the stack's containers, also those that were killed, by service.
func (s *Stack) Containers(ctx context.Context) ([]Container, error) {
	out, err := s.run(ctx, "docker", "ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project="+s.project)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(string(out))
	if len(ids) == 0 {
		return nil, nil
	}
	out, err = s.run(ctx, "docker", append([]string{"inspect"}, ids...)...)
	if err != nil {
		return nil, err
	}
	var found []struct {
		ID    string `json:"Id"`
		State struct {
			Running bool
			Health  *struct{ Status string }
		}
		Config struct{ Labels map[string]string }
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return nil, fmt.Errorf("docker inspect: %w", err)
	}
	var cs []Container
	for _, f := range found {
		c := Container{
			Service: f.Config.Labels["com.docker.compose.service"], Region: f.Config.Labels["nearside.region"],
			ID: f.ID, Running: f.State.Running,
		}
		if h := f.State.Health; h != nil && h.Status != "none" {
			c.Health = h.Status
		}
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b Container) int { return strings.Compare(a.Service, b.Service) })
	return cs, nil
}

// KillRegion ends every container of a region at once, with SIGKILL.
func (s *Stack) KillRegion(ctx context.Context, region string) error {
	cs, err := s.Containers(ctx)
	if err != nil {
		return err
	}
	args := []string{"kill"}
	for _, c := range cs {
		if c.Region == region && c.Running {
			args = append(args, c.ID)
		}
	}
	if len(args) == 1 {
		return fmt.Errorf("region %s: no container runs", region)
	}
	_, err = s.run(ctx, "docker", args...)
	return err
}

// Ticks returns what the load generator of a region has reported so far, oldest first.
func (s *Stack) Ticks(ctx context.Context, region string) ([]Tick, error) {
	cs, err := s.Containers(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(cs, func(c Container) bool { return c.Service == region+"-load" })
	if at < 0 {
		return nil, fmt.Errorf("region %s has no load generator", region)
	}
	out, err := s.run(ctx, "docker", "logs", cs[at].ID)
	if err != nil {
		return nil, err
	}
	return ParseTicks(out)
}

// ParseTicks reads a report: one JSON object a line. Lines that are no report are skipped,
// the last line may be cut short, and the final totals are not a tick.
func ParseTicks(report []byte) ([]Tick, error) {
	var ticks []Tick
	lines := bufio.NewScanner(bytes.NewReader(report))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if !bytes.HasPrefix(line, []byte("{")) || !bytes.HasSuffix(line, []byte("}")) {
			continue
		}
		var t Tick
		if err := json.Unmarshal(line, &t); err != nil {
			return nil, fmt.Errorf("report line %q: %w", line, err)
		}
		if !t.Final && !t.T.IsZero() && t.Region != "" {
			ticks = append(ticks, t)
		}
	}
	return ticks, lines.Err()
}

// Logs returns everything that a container printed, both streams.
func (s *Stack) Logs(ctx context.Context, c Container) ([]byte, error) {
	return exec.CommandContext(ctx, "docker", "logs", "--timestamps", c.ID).CombinedOutput()
}

func (s *Stack) composeRun(ctx context.Context, args ...string) ([]byte, error) {
	return s.run(ctx, s.compose[0], slices.Concat(s.compose[1:], []string{"-p", s.project, "-f", s.file}, args)...)
}

// run runs a command and returns its standard output; an error carries what it said.
func (s *Stack) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
