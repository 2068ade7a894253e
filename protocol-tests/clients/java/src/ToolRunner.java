import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Kafka's tools one after another in this JVM, each with its own standard streams; a call of exit returns
 * an exit code. Requests and answers are described in protocol-tests/src/java.rs.
 */
public final class ToolRunner {
    /** Thrown to end a tool that calls exit. */
    private static final class Exited extends RuntimeException {
        final int code;

        Exited(int code) {
            super("exit " + code, null, false, false);
            this.code = code;
        }
    }

    /** The first exit counts: some tools catch everything, our exception too, and then exit once more. */
    private static volatile Integer firstExit;

    /** What the tool of the moment wants to be done at its end: close its client, print its summary. */
    private static final List<Runnable> HOOKS = Collections.synchronizedList(new ArrayList<>());

    public static void main(String[] ignored) throws Exception {
        DataInputStream requests = new DataInputStream(System.in);
        PrintStream answers = System.out;
        PrintStream realError = System.err;
        Exit.Procedure exit = (code, message) -> {
            if (firstExit == null) {
                firstExit = code;
            }
            throw new Exited(code);
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        while (true) {
            String line = readLine(requests);
            if (line == null) {
                Runtime.getRuntime().halt(0);
            }
            String[] fields = new String[Integer.parseInt(line)];
            for (int i = 0; i < fields.length; i++) {
                byte[] bytes = new byte[Integer.parseInt(readLine(requests))];
                requests.readFully(bytes);
                fields[i] = new String(bytes, StandardCharsets.UTF_8);
            }
            String[] arguments = new String[fields.length - 2];
            System.arraycopy(fields, 2, arguments, 0, arguments.length);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
            System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
            System.setIn(new ByteArrayInputStream(fields[1].getBytes(StandardCharsets.UTF_8)));
            int code = run(fields[0], arguments);
            runHooks();
            System.out.flush();
            System.err.flush();
            System.setOut(realError);
            System.setErr(realError);
            byte[] outBytes = out.toByteArray();
            byte[] errBytes = err.toByteArray();
            answers.print(code + " " + outBytes.length + " " + errBytes.length + "\n");
            answers.write(outBytes, 0, outBytes.length);
            answers.write(errBytes, 0, errBytes.length);
            answers.flush();
        }
    }

    private static int run(String className, String[] arguments) {
        firstExit = null;
        try {
            Method main = Class.forName(className).getMethod("main", String[].class);
            main.invoke(null, (Object) arguments);
            return firstExit == null ? 0 : firstExit;
        } catch (InvocationTargetException e) {
            if (firstExit != null) {
                return firstExit;
            }
            e.getCause().printStackTrace();
            return 1;
        } catch (ReflectiveOperationException e) {
            e.printStackTrace();
            return 1;
        }
    }

    private static void runHooks() throws InterruptedException {
        List<Runnable> hooks = new ArrayList<>(HOOKS);
        HOOKS.clear();
        for (Runnable hook : hooks) {
            Thread thread = new Thread(hook, "shutdown-hook");
            thread.setDaemon(true);
            thread.start();
            thread.join(10_000);
        }
    }

    private static String readLine(InputStream in) throws Exception {
        StringBuilder line = new StringBuilder();
        while (true) {
            int next = in.read();
            if (next < 0) {
                return line.length() == 0 ? null : line.toString();
            }
            if (next == '\n') {
                return line.toString();
            }
            line.append((char) next);
        }
    }
}
