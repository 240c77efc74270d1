set terminal svg size 1012,420 dynamic font 'sans,12' background 'white'
set output 'widths.svg'
set title 'opt-small, 0 % sparsity, calibrated on wikitext2.calib.txt: widths of budget-model 3' noenhanced
set style data histograms
set style histogram rowstacked
set style fill solid 0.9
set boxwidth 0.85
set yrange [0:100]
set ylabel 'channels, %'
set xtics rotate by 60 right noenhanced font ',10'
set key outside right noenhanced
$data << EOD
"0.self_attn.k_proj" 0 78.125 21.875 0 0
"0.self_attn.v_proj" 0 0 97.6562 2.34375 0
"0.self_attn.q_proj" 25.5859 73.0469 1.36719 0 0
"0.self_attn.out_proj" 0.195312 16.9922 82.8125 0 0
"0.fc1" 0 3.41797 96.582 0 0
"0.fc2" 0 0 99.6094 0.390625 0
"1.self_attn.k_proj" 100 0 0 0 0
"1.self_attn.v_proj" 100 0 0 0 0
"1.self_attn.q_proj" 0 45.1172 53.3203 1.5625 0
"1.self_attn.out_proj" 100 0 0 0 0
"1.fc1" 80.3223 19.6777 0 0 0
"1.fc2" 32.8125 67.1875 0 0 0
"2.self_attn.k_proj" 0 1.17188 98.8281 0 0
"2.self_attn.v_proj" 76.5625 23.4375 0 0 0
"2.self_attn.q_proj" 100 0 0 0 0
"2.self_attn.out_proj" 24.4141 75.5859 0 0 0
"2.fc1" 3.66211 96.2891 0.0488281 0 0
"2.fc2" 15.625 84.375 0 0 0
"3.self_attn.k_proj" 0 99.6094 0.390625 0 0
"3.self_attn.v_proj" 0.195312 99.8047 0 0 0
"3.self_attn.q_proj" 97.0703 2.92969 0 0 0
"3.self_attn.out_proj" 0.585938 99.4141 0 0 0
"3.fc1" 0.341797 99.5605 0.0976562 0 0
"3.fc2" 8.39844 91.6016 0 0 0
"4.self_attn.k_proj" 0.195312 99.6094 0.195312 0 0
"4.self_attn.v_proj" 0 99.4141 0.585938 0 0
"4.self_attn.q_proj" 39.8438 60.1562 0 0 0
"4.self_attn.out_proj" 0 96.875 3.125 0 0
"4.fc1" 0.0976562 99.4141 0.488281 0 0
"4.fc2" 0.195312 99.2188 0.585938 0 0
"5.self_attn.k_proj" 0 98.2422 1.75781 0 0
"5.self_attn.v_proj" 0 87.1094 12.8906 0 0
"5.self_attn.q_proj" 0.976562 99.0234 0 0 0
"5.self_attn.out_proj" 0 94.5312 5.46875 0 0
"5.fc1" 0 85.791 14.209 0 0
"5.fc2" 3.51562 95.8984 0.585938 0 0
EOD
plot $data using 2:xtic(1) lc rgb '#313695' title '2 bits', $data using 3 lc rgb '#74add1' title '3 bits', $data using 4 lc rgb '#fee090' title '4 bits', $data using 5 lc rgb '#f46d43' title '6 bits', $data using 6 lc rgb '#a50026' title '8 bits'
